"""RiskService: profiles of buyers' conduct, and operators' freezes. Who is refused for it is the
business of `server/edge.py`."""

from typing import Any

from stockray_proto.v1 import common_pb2, risk_service_pb2

from actors.core.outcomes import Outcome
from server.handlers import CallContext, Method, QuickCalls
from server.lines import Lines
from server.reply import Reply
from server.translate.risk import (
    freeze_command,
    get_profile_command,
    profile_message,
    unfreeze_command,
)
from server.translate.scalars import age_of
from server.translate.stock import head, item

RISK = "/stockray.v1.RiskService/"


class Risk:
    """Read, freeze, unfreeze."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def methods(self) -> list[Method]:
        """The calls of this service."""
        wire = risk_service_pb2
        calls: QuickCalls = {
            "GetProfile": (wire.GetProfileRequest, self.get_profile),
            "Freeze": (wire.FreezeRequest, self.freeze),
            "Unfreeze": (wire.UnfreezeRequest, self.unfreeze),
        }
        return [Method(path=RISK + n, request=r, quick=h) for n, (r, h) in calls.items()]

    def get_profile(
        self, request: risk_service_pb2.GetProfileRequest, context: CallContext, reply: Reply
    ) -> None:
        """One buyer's profile."""
        command = get_profile_command(request, context)
        self._lines.put(command, reply.after(_read, (command, context, context.now_ms())))

    def freeze(
        self, request: risk_service_pb2.FreezeRequest, context: CallContext, reply: Reply
    ) -> None:
        """An operator's freeze."""
        command = freeze_command(request, context)
        self._lines.put(command, reply.after(_frozen, command))

    def unfreeze(
        self, request: risk_service_pb2.UnfreezeRequest, context: CallContext, reply: Reply
    ) -> None:
        """The end of a freeze."""
        command = unfreeze_command(request, context)
        self._lines.put(command, reply.after(_unfrozen, command))


def _read(subject: tuple[Any, CallContext, int], answer: tuple[Any, ...]) -> bytes:
    command, context, asked_ms = subject
    response = risk_service_pb2.GetProfileResponse(
        **head(answer), profile=profile_message(command.buyer_id, item(answer, 1))
    )
    if answer[0] == Outcome.FOUND:
        age = age_of(asked_ms, context.now_ms(), common_pb2.DATA_SOURCE_SHARD)
        response.age.CopyFrom(age)
    return response.SerializeToString()


def _frozen(command: Any, answer: tuple[Any, ...]) -> bytes:
    return risk_service_pb2.FreezeResponse(
        **head(answer), profile=profile_message(command.buyer_id, item(answer, 1))
    ).SerializeToString()


def _unfrozen(command: Any, answer: tuple[Any, ...]) -> bytes:
    return risk_service_pb2.UnfreezeResponse(
        **head(answer), profile=profile_message(command.buyer_id, item(answer, 1))
    ).SerializeToString()
