"""Where a request's trace goes on, and what people correct.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("transcription_jobs", sa.Column("traceparent", sa.Text(), nullable=True))
    op.add_column("transcript_segments", sa.Column("corrected_text", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("transcript_segments", "corrected_text")
    op.drop_column("transcription_jobs", "traceparent")
