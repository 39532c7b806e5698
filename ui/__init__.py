"""The web page at /ui: static files, as they are. It knows the service only by the API that everybody has."""

from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

STATIC = Path(__file__).parent / "static"
PAGE = "/ui/"


def install(app: FastAPI) -> None:
    app.add_route("/", _to_the_page, include_in_schema=False)
    app.mount("/ui", StaticFiles(directory=STATIC, html=True), name="ui")


async def _to_the_page(request: Request) -> RedirectResponse:
    """Browsers only: programs are told, as at every other address, that nothing is here."""
    if "text/html" not in request.headers.get("accept", ""):
        raise HTTPException(404)
    return RedirectResponse(PAGE)
