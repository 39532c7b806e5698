"""What a recording says beyond its text: the language and channel of a segment, warnings, the revision of the weights.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("transcript_segments", sa.Column("language", sa.Text()))
    op.add_column("transcript_segments", sa.Column("channel", sa.Integer()))
    op.add_column(
        "transcription_results",
        sa.Column("warnings", JSONB(), nullable=False, server_default=sa.text("'[]'")),
    )
    op.add_column("transcription_results", sa.Column("model_revision", sa.Text()))


def downgrade() -> None:
    op.drop_column("transcription_results", "model_revision")
    op.drop_column("transcription_results", "warnings")
    op.drop_column("transcript_segments", "channel")
    op.drop_column("transcript_segments", "language")
