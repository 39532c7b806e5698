"""Orders to load and unload models.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "model_orders",
        sa.Column("size", sa.Text(), nullable=False),
        sa.Column("wanted", sa.Text(), nullable=False),
        sa.Column(
            "ordered_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("wanted IN ('loaded','unloaded')", name=op.f("ck_model_orders_wanted")),
        sa.PrimaryKeyConstraint("size", name=op.f("pk_model_orders")),
    )


def downgrade() -> None:
    op.drop_table("model_orders")
