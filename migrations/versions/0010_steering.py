"""Steering: pauses of queues and callers, cordons of workers, and a log of what operators changed.

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.create_table(
        "pauses",
        sa.Column("kind", sa.Text(), primary_key=True),
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("paused_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("paused_by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.CheckConstraint("kind IN ('queue','caller')", name="kind"),
    )
    op.create_table(
        "cordons",
        sa.Column("worker", sa.Text(), primary_key=True),
        sa.Column("drains", sa.Boolean(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("ordered_by", sa.Text(), nullable=False),
    )
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("detail", JSONB(), server_default=sa.text("'{}'"), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("audit_log")
    op.drop_table("cordons")
    op.drop_table("pauses")
