"""THE HOT PATH: one call, from its key to its line in the ledger, on one screen.

Each block undoes what it did when it is left, in reverse order, in the same task, whatever happened: the
answer's end, an error, a hang-up, the shutdown. So the upstream is closed first, then the ledger's line, then
the place is given back.
"""

from llmgateway.domain.ports import Caller
from llmgateway.flow.account import Account
from llmgateway.flow.admit import Admit
from llmgateway.flow.authenticate import Authenticate
from llmgateway.flow.relay import Relay
from llmgateway.flow.route import Route
from llmgateway.flow.vigil import Watch


class Gateway:
    """The five steps, and the watch over them."""

    def __init__(
        self,
        authenticate: Authenticate,
        route: Route,
        admit: Admit,
        account: Account,
        relay: Relay,
        watch: Watch,
    ) -> None:
        self.authenticate = authenticate
        self.route = route
        self.admit = admit
        self.account = account
        self.relay = relay
        self.watch = watch

    async def exchange(self, caller: Caller) -> None:
        """Answers the caller, or raises a `GatewayError` that is still to be told to it."""
        principal = await self.authenticate(caller.token)
        ask = await caller.ask()
        model, targets = self.route(ask, principal)
        with self.watch(caller, model, streams=ask.stream) as vigil:
            async with (
                self.admit(caller, ask, principal, model, vigil) as permit,
                self.account(caller, ask, principal, model, vigil, permit) as line,
                self.relay(caller, ask, model, targets, line) as passage,
            ):
                await passage.deliver()
                await line.settle()  # before the last word: SDKs hang up at [DONE]
                await caller.finish(passage.last)
