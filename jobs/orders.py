"""Orders to load or unload a model: a row a size, which worker children look at before each sign of life.

Workers have no control channel, and Redis is only a wake-up. Nothing here obeys an order: worker.py does.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from models import ModelOrder

Wanted = Literal["loaded", "unloaded"]


def place(session: Session, size: str, wanted: Wanted) -> ModelOrder:
    """In place of the order that there may be for this size."""
    changing = {"wanted": wanted, "ordered_at": func.clock_timestamp()}
    statement = insert(ModelOrder).values(size=size, **changing)
    upsert = statement.on_conflict_do_update(index_elements=["size"], set_=changing).returning(ModelOrder)
    return session.scalars(upsert, execution_options={"populate_existing": True}).one()


def placed(session: Session) -> Sequence[ModelOrder]:
    """The last order for each size, oldest first."""
    return session.scalars(select(ModelOrder).order_by(ModelOrder.ordered_at, ModelOrder.size)).all()


class Watch:
    """One process's view: which orders it has not seen yet. What there was at its first look is not for it.

    Kept a size, not as one latest time: two orders may become visible in another order than their times say.
    """

    def __init__(self) -> None:
        self._seen: dict[str, datetime] | None = None

    def unseen(self, session: Session) -> list[ModelOrder]:
        orders = placed(session)
        before, self._seen = self._seen, {order.size: order.ordered_at for order in orders}
        return [] if before is None else [one for one in orders if before.get(one.size) != one.ordered_at]
