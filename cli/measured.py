"""What one daemon process measures: its parts count through observers, and /metrics shows it with tables and lag."""

from contextlib import ExitStack
from typing import TYPE_CHECKING

from ..messaging.metrics import Readings
from ..messaging.observer import Observer, together
from .app import App
from .health import Page
from .metrics import EVERY_OF_KAFKA, PATIENCE, Look, Looks, build, of_dead_letters, of_held, of_lag, of_outbox, taken

if TYPE_CHECKING:
    from ..inbox import Inbox, InboxRunner
    from ..inbox.metrics import InboxMetrics
    from ..outbox.names import Names
    from ..relay import Relay
    from ..relay.metrics import RelayMetrics


class Measured:
    """Does nothing where the settings name no ``health_address``, so that nobody could see it. Close it at the end."""

    def __init__(self, service: str, app: App, names: "Names") -> None:
        from .statistics import Statistics

        self._on = app.settings.health_address is not None
        self._app = app
        self._names = names
        self._stack = ExitStack()
        self._readings = [build(service)]
        self._looks: dict[str, Look] = {}
        self._looks_at_kafka: dict[str, Look] = {}
        self._of_relay: RelayMetrics | None = None
        self._of_inbox: InboxMetrics | None = None
        if self._on:
            self._statistics = Statistics(app.database_url, names, patience=PATIENCE)
            self._looks["dead_letters"] = of_dead_letters(self._statistics)

    def relay(self, observe: Observer) -> Observer:
        """``observe``, and count."""
        if not self._on:
            return observe
        from ..outbox.database import open_store
        from ..relay.metrics import METRICS, RelayMetrics

        store = open_store(self._app.database_url, self._names)
        self._stack.callback(store.close)
        self._looks["outbox"] = of_outbox(store, self._statistics)
        self._of_relay = RelayMetrics(self._more(Readings(METRICS)))
        return together(observe, self._of_relay)

    def inbox(self, observe: Observer, inbox: "Inbox") -> Observer:
        """``observe``, and count."""
        if not self._on:
            return observe
        from ..inbox.metrics import METRICS, InboxMetrics
        from .lag import Lagging

        self._looks["held"] = of_held(self._statistics)
        lagging = Lagging(self._app)
        self._stack.callback(lagging.close)
        self._looks_at_kafka["lag"] = of_lag(lagging, inbox.group, inbox.topics)
        self._of_inbox = InboxMetrics(self._more(Readings(METRICS)), inbox)
        return together(observe, self._of_inbox)

    def watch(self, service: "Relay | InboxRunner") -> None:
        """Show what is known of a running part at the time only."""
        from ..inbox import InboxRunner

        if isinstance(service, InboxRunner):
            if self._of_inbox is not None:
                self._of_inbox.watch(service)
        elif self._of_relay is not None:
            self._of_relay.watch(service.health)

    def page(self) -> Page | None:
        """What /metrics answers."""
        if not self._on:
            return None
        from ..messaging.prometheus import page

        tables = Looks(self._looks)
        kafka = Looks(self._looks_at_kafka, every=EVERY_OF_KAFKA, up=None)
        return lambda: page(*self._readings, *taken(tables, kafka))

    def close(self) -> None:
        """Close what is open."""
        self._stack.close()

    def _more(self, readings: Readings) -> Readings:
        self._readings.append(readings)
        return readings
