"""Deleting jobs in time.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

DELETE_AT = sa.text("delete_at IS NOT NULL")
COMPLETED_AT = sa.text("completed_at IS NOT NULL")


def upgrade() -> None:
    op.add_column("transcription_jobs", sa.Column("delete_after_s", sa.Integer(), nullable=True))
    op.add_column("transcription_jobs", sa.Column("delete_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_jobs_delete_at", "transcription_jobs", ["delete_at"], postgresql_where=DELETE_AT)
    op.create_index("ix_jobs_completed_at", "transcription_jobs", ["completed_at"], postgresql_where=COMPLETED_AT)
    op.create_index("ix_jobs_storage_key", "transcription_jobs", ["storage_key"])


def downgrade() -> None:
    op.drop_index("ix_jobs_storage_key", table_name="transcription_jobs")
    op.drop_index("ix_jobs_completed_at", table_name="transcription_jobs", postgresql_where=COMPLETED_AT)
    op.drop_index("ix_jobs_delete_at", table_name="transcription_jobs", postgresql_where=DELETE_AT)
    op.drop_column("transcription_jobs", "delete_at")
    op.drop_column("transcription_jobs", "delete_after_s")
