"""A loss that stops being a number."""

import signal

from tests.faults.fault import SIGNALLED, TrainingFault, require_clear_stop
from tests.faults.trial import require


class Diverged(TrainingFault):
    name = "not-finite"
    what = "a run stopped at some step goes on with a learning rate of 1e38"
    needs_metric = True

    def strike(self, run, attempt, moments):
        attempt.send(signal.SIGTERM)

    def check_end(self, run, end):
        require(end.status == SIGNALLED + signal.SIGTERM, f"ended with {end.status} of SIGTERM:\n{end.log[-3000:]}")
        good = run.newest_checkpoint()
        diverged = run.start("--config.learning_rate=1e38").finish()
        require_clear_stop(diverged, 1, "training stopped: ", f"checkpoint {good} and last/ are good")
        require(run.newest_checkpoint() == good, "it saved a state that is no good")
