"""Keys, owners, idempotency, webhooks, recordings by address.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

RUNG = sa.text("status = 'pending' AND published_at IS NOT NULL")
SIZE = "size_bytes > 0 OR (size_bytes = 0 AND source_url IS NOT NULL)"


def upgrade() -> None:
    op.drop_constraint(op.f("ck_transcription_jobs_size"), "transcription_jobs")
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=False),
        sa.Column("hmac", sa.Text(), nullable=False),
        sa.Column("rate_limit_per_minute", sa.Integer(), nullable=True),
        sa.Column("quota_waiting_jobs", sa.Integer(), nullable=True),
        sa.Column("quota_audio_hours_per_day", sa.Double(), nullable=True),
        sa.Column("delete_after_s", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("role IN ('user','admin')", name=op.f("ck_api_keys_role")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("hmac", name=op.f("uq_api_keys_hmac")),
    )
    op.create_table(
        "disabled_receivers",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("owner", "url", name=op.f("pk_disabled_receivers")),
    )
    op.create_table(
        "webhook_secrets",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), server_default="1", nullable=False),
        sa.Column("rotated_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_webhook_secrets")),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("batch_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batches.id"], name=op.f("fk_idempotency_keys_batch_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["transcription_jobs.id"], name=op.f("fk_idempotency_keys_job_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("owner", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(
        "ix_idempotency_keys_batch_id",
        "idempotency_keys",
        ["batch_id"],
        unique=False,
        postgresql_where=sa.text("batch_id IS NOT NULL"),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"], unique=False)
    op.create_index(
        "ix_idempotency_keys_job_id",
        "idempotency_keys",
        ["job_id"],
        unique=False,
        postgresql_where=sa.text("job_id IS NOT NULL"),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("batch_id", sa.Uuid(), nullable=True),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("response_status", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'pending') = (finished_at IS NULL)", name=op.f("ck_webhook_deliveries_finished")),
        sa.CheckConstraint(
            "(state = 'pending') = (next_try_at IS NOT NULL)", name=op.f("ck_webhook_deliveries_next_try")
        ),
        sa.CheckConstraint(
            "state IN ('pending','delivered','failed','disabled')", name=op.f("ck_webhook_deliveries_state")
        ),
        sa.CheckConstraint("num_nonnulls(job_id, batch_id) = 1", name=op.f("ck_webhook_deliveries_subject")),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batches.id"], name=op.f("fk_webhook_deliveries_batch_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["transcription_jobs.id"], name=op.f("fk_webhook_deliveries_job_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
    )
    op.create_index(
        "ix_webhook_deliveries_due",
        "webhook_deliveries",
        ["next_try_at"],
        unique=False,
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index("ix_webhook_deliveries_job", "webhook_deliveries", ["job_id"], unique=False)
    op.create_index("ix_webhook_deliveries_newest", "webhook_deliveries", ["created_at", "id"], unique=False)
    op.create_index(
        "ix_webhook_deliveries_owner_newest", "webhook_deliveries", ["owner", "created_at", "id"], unique=False
    )
    op.create_index(
        "uq_webhook_deliveries_batch",
        "webhook_deliveries",
        ["batch_id"],
        unique=True,
        postgresql_where=sa.text("batch_id IS NOT NULL"),
    )
    op.add_column("batches", sa.Column("owner", sa.Text(), server_default="", nullable=False))
    op.add_column("batches", sa.Column("webhook_url", sa.Text(), nullable=True))
    op.create_index("ix_batches_owner_newest", "batches", ["owner", "created_at", "id"], unique=False)
    op.add_column("transcription_jobs", sa.Column("owner", sa.Text(), server_default="", nullable=False))
    op.add_column("transcription_jobs", sa.Column("source_url", sa.Text(), nullable=True))
    op.add_column("transcription_jobs", sa.Column("webhook_url", sa.Text(), nullable=True))
    op.add_column("transcription_jobs", sa.Column("attach_key", sa.Text(), nullable=True))
    op.add_column("transcription_jobs", sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("transcription_jobs", sa.Column("download", postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    op.create_index(
        "ix_jobs_attach",
        "transcription_jobs",
        ["attach_key"],
        unique=False,
        postgresql_where=sa.text("attach_key IS NOT NULL"),
    )
    op.create_index(
        "ix_jobs_owner_newest",
        "transcription_jobs",
        ["owner", "created_at", "id"],
        unique=False,
        postgresql_where=sa.text("owner <> ''"),
    )
    op.create_index("ix_jobs_rung", "transcription_jobs", ["queue", "published_at"], postgresql_where=RUNG)
    op.drop_index("ix_jobs_waiting", table_name="transcription_jobs")
    op.create_index(
        "ix_jobs_waiting_by_owner",
        "transcription_jobs",
        ["retrying", "priority", "owner", "run_at", "created_at"],
        unique=False,
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_check_constraint(op.f("ck_transcription_jobs_size"), "transcription_jobs", SIZE)


def downgrade() -> None:
    """Jobs whose recording was never fetched cannot be kept: the old schema has no place for them."""
    op.execute("DELETE FROM transcription_jobs WHERE size_bytes = 0")
    op.drop_constraint(op.f("ck_transcription_jobs_size"), "transcription_jobs")
    op.create_index(
        "ix_jobs_waiting",
        "transcription_jobs",
        ["retrying", "priority", "run_at", "created_at"],
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.drop_index("ix_jobs_rung", table_name="transcription_jobs")
    op.drop_index(
        "ix_jobs_waiting_by_owner", table_name="transcription_jobs", postgresql_where=sa.text("status = 'pending'")
    )
    op.drop_index("ix_jobs_owner_newest", table_name="transcription_jobs", postgresql_where=sa.text("owner <> ''"))
    op.drop_index("ix_jobs_attach", table_name="transcription_jobs", postgresql_where=sa.text("attach_key IS NOT NULL"))
    op.drop_column("transcription_jobs", "download")
    op.drop_column("transcription_jobs", "answered_at")
    op.drop_column("transcription_jobs", "attach_key")
    op.drop_column("transcription_jobs", "webhook_url")
    op.drop_column("transcription_jobs", "source_url")
    op.drop_column("transcription_jobs", "owner")
    op.drop_index("ix_batches_owner_newest", table_name="batches")
    op.drop_column("batches", "webhook_url")
    op.drop_column("batches", "owner")
    op.drop_index(
        "uq_webhook_deliveries_batch", table_name="webhook_deliveries", postgresql_where=sa.text("batch_id IS NOT NULL")
    )
    op.drop_index("ix_webhook_deliveries_owner_newest", table_name="webhook_deliveries")
    op.drop_index("ix_webhook_deliveries_newest", table_name="webhook_deliveries")
    op.drop_index("ix_webhook_deliveries_job", table_name="webhook_deliveries")
    op.drop_index(
        "ix_webhook_deliveries_due", table_name="webhook_deliveries", postgresql_where=sa.text("state = 'pending'")
    )
    op.drop_table("webhook_deliveries")
    op.drop_index(
        "ix_idempotency_keys_job_id", table_name="idempotency_keys", postgresql_where=sa.text("job_id IS NOT NULL")
    )
    op.drop_index("ix_idempotency_keys_created_at", table_name="idempotency_keys")
    op.drop_index(
        "ix_idempotency_keys_batch_id", table_name="idempotency_keys", postgresql_where=sa.text("batch_id IS NOT NULL")
    )
    op.drop_table("idempotency_keys")
    op.drop_table("webhook_secrets")
    op.drop_table("disabled_receivers")
    op.drop_table("api_keys")
    op.create_check_constraint(op.f("ck_transcription_jobs_size"), "transcription_jobs", "size_bytes > 0")
