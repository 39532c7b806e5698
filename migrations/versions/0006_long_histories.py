"""What housekeeping looks for, in tables of any length: old events, and the dead letters of a job that goes.

Revision ID: 0006
Revises: 0005
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_job_events_at", "job_events", ["at"])
    op.create_index("ix_error_logs_job", "error_logs", ["job_id"])


def downgrade() -> None:
    op.drop_index("ix_error_logs_job", table_name="error_logs")
    op.drop_index("ix_job_events_at", table_name="job_events")
