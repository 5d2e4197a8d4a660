"""What operators ask becomes what the gates of this process do."""

from collections.abc import Mapping

from ..messaging.errors import ConfigurationError
from ..messaging.observer import Observer
from .control import HANDLER, Control
from .gate import Gate
from .handlers import NOBODY, Handler
from .lanes import Lanes
from .settings import InboxSettings


class Obedience:
    """One inbox's. For one thread; gates are looked at and changed under the lock of the lanes."""

    def __init__(self, gates: Mapping[Handler, Gate], lanes: Lanes, settings: InboxSettings, observe: Observer) -> None:
        self._gates = gates
        self._lanes = lanes
        self._settings = settings
        self._observe = observe

    def differs(self, control: Control) -> bool:
        """Whether a handler is paused here and not there, or for another reason.

        A worker pauses one by itself (see ``limit``). If it was resumed before this process looked, there was nothing
        to see.
        """
        with self._lanes.lock:
            paused = {handler: gate.paused for handler, gate in self._gates.items()}
        return any(control.why_paused(each.topic, each.name) != why for each, why in paused.items())

    def obey(self, control: Control) -> None:
        """Pause, resume and change policies, and tell of it."""
        for handler, gate in self._gates.items():
            paused = control.why_paused(handler.topic, handler.name)
            layers = [control.policies.get(subject, {}) for subject in ("", HANDLER + handler.name)]
            try:
                policy = handler.policy_by(self._settings, *layers)
            except ConfigurationError as error:
                self._observe("policy_refused", handler=handler.name, error=error)
                policy = gate.policy
            with self._lanes.lock:
                changed, was = policy != gate.policy, gate.paused
                gate.policy, gate.paused = policy, paused
            if changed:
                self._observe("policy_changed", handler=handler.name, policy=policy.model_dump(exclude_defaults=True))
            if paused != was and handler is not NOBODY:
                self._observe("held_back" if paused is not None else "resumed", handler=handler.name, reason=paused)
        self._lanes.wake()
