"""Indexes for what is asked all the time and grew with history: the newest results, dead letters not yet told of.

Built without holding up anybody who writes. One that was interrupted is left invalid by PostgreSQL, and made anew.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

NEWEST, UNTOLD = "ix_transcription_results_newest", "ix_error_logs_untold"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '10min'")  # for transactions that are under way; nobody waits behind
        _drop()
        op.create_index(NEWEST, "transcription_results", ["created_at"], postgresql_concurrently=True)
        untold = sa.text("notified_at IS NULL")
        op.create_index(UNTOLD, "error_logs", ["created_at"], postgresql_concurrently=True, postgresql_where=untold)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        _drop()


def _drop() -> None:
    op.drop_index(UNTOLD, "error_logs", if_exists=True, postgresql_concurrently=True)
    op.drop_index(NEWEST, "transcription_results", if_exists=True, postgresql_concurrently=True)
