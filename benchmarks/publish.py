"""What ``publish`` adds to the smallest business transaction: one row, one commit, with SQLAlchemy's session."""

import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from postroom.outbox import Message, Outbox, schema

from .drain import Ask

_OUTBOX = Outbox(source="/bench")
_PAYLOAD = b"x" * 300
_WARM_UP = 200
_PER_TURN = 100


class Base(DeclarativeBase):
    """The business' tables."""


class Row(Base):
    """The business' row."""

    __tablename__ = "bench_row"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


def publish(ask: Ask) -> dict[str, Any]:
    """``ask.n`` transactions of each kind, in turns of a hundred, so that both meet the same machine."""
    engine = sa.create_engine(sa.make_url(ask.url).set(drivername="postgresql+psycopg"))
    try:
        schema.upgrade(ask.url)
        Base.metadata.create_all(engine)
        _seconds(engine, _WARM_UP, publishing=True)
        _seconds(engine, _WARM_UP, publishing=False)
        with_publish = without = 0.0
        turns = max(1, ask.n // _PER_TURN)
        for _ in range(turns):
            with_publish += _seconds(engine, _PER_TURN, publishing=True)
            without += _seconds(engine, _PER_TURN, publishing=False)
    finally:
        engine.dispose()
    count = turns * _PER_TURN
    return {
        "n": count,
        "with_ms": round(1000 * with_publish / count, 4),
        "without_ms": round(1000 * without / count, 4),
        "ratio": round(with_publish / without, 4),
    }


def _seconds(engine: sa.Engine, count: int, *, publishing: bool) -> float:
    began = time.perf_counter()
    with Session(engine) as session:
        for _ in range(count):
            session.add(Row(text="x"))
            if publishing:
                _OUTBOX.publish(session, Message(topic="bench", key="k", payload=_PAYLOAD, type="bench"))
            session.commit()
    return time.perf_counter() - began
