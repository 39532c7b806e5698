"""What is the worker's fault: since when a job is stalled by workers, and why a worker child is ill.

Jobs that failed without having taken a child down leave the retry queue: they go to their own queue now.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("transcription_jobs", sa.Column("stalled_at", sa.DateTime(timezone=True)))
    op.add_column("processes", sa.Column("illness", JSONB()))
    op.execute(
        "UPDATE transcription_jobs SET retrying = false "
        "WHERE status = 'pending' AND retrying AND priority IN ('high', 'normal') AND losses = 0"
    )


def downgrade() -> None:
    op.drop_column("processes", "illness")
    op.drop_column("transcription_jobs", "stalled_at")
