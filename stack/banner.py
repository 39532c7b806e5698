"""The block that a person reads when everything is up: addresses, and commands that work when pasted."""

from pathlib import Path
from shlex import quote

from stack.plan import Plan
from stack.process import ROOT

SAMPLES = ROOT / "demo" / "samples"
DEMO = "demo"  # the model that the repository carries


def banner(plan: Plan) -> str:
    api, key = plan.addresses.api, _key(plan)
    option = f" -F model_size={DEMO}" if plan.model == DEMO else ""
    return f"""
Web page  {api}/ui/
API       {api}      documentation {api}/docs      metrics {api}/metrics
Flower    {plan.addresses.flower}      user {plan.settings.flower_user}, password {_flower_password(plan)}
Data      {plan.home.root}      logs in {plan.home.logs}
Model     {plan.model}

  curl{key} -F file=@{quote(str(sample()))}{option} {api}/transcribe/
  curl{key} {api}/transcribe/JOB_ID        # the job_id of the answer; add /result?format=txt when it is completed
  .venv/bin/transcribe --server {api} submit FOLDER -f srt -o OUT        # many recordings, with progress

Ctrl-C stops everything; the data stays."""


def sample() -> Path:
    """A recording that is there, or a name that says what to put in its place."""
    return next(iter(sorted(SAMPLES.glob("english.*[!t]"))), Path("recording.wav"))


def _key(plan: Plan) -> str:
    return ' -H "Authorization: Bearer $API_KEY"' if plan.settings.api_key.get_secret_value() else ""


def _flower_password(plan: Plan) -> str:
    if plan.settings.flower_password.get_secret_value():
        return "as in FLOWER_PASSWORD"
    return f"in {plan.home.secret_path('flower')}"
