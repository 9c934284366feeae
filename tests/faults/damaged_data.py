"""Data that goes bad under a run: bytes that flip in a shard, and a shard that is gone."""

from tests.faults.fault import TrainingFault, require_clear_stop, require_killed
from tests.faults.killed import Killed
from tests.faults.training import CHECKPOINT_EVERY

_FLIPS = 12
"""Bytes that flip, of some hundred records: whatever is drawn next soon meets one of them."""


def _shard(directory):
    (path,) = directory.glob("asccl_frames-train.tfrecord-?????-of-?????")
    return path


class FlippedBytes(TrainingFault):
    name = "corrupt-record"
    what = "bytes flip in a shard of frames in mid-epoch"
    needs_metric = True

    def strike(self, run, attempt, moments):
        shard = _shard(run.records)
        size = shard.stat().st_size
        with shard.open("r+b") as file:  # in place: the run has it open
            for _ in range(_FLIPS):
                file.seek(moments.randrange(size))
                (byte,) = file.read(1)
                file.seek(-1, 1)
                file.write(bytes([byte ^ 1 << moments.randrange(8)]))

    def check_end(self, run, end):
        require_clear_stop(end, 2, _shard(run.records).name, "record")

    def mend(self, run):
        _shard(run.records).write_bytes(_shard(run.materials.records).read_bytes())


class LostShard(Killed):
    name = "lost-shard"
    what = "a shard is removed: a run that has it open goes on; `kill -9`, and the next start names it"
    needs_metric = True

    def strike(self, run, attempt, moments):
        _shard(run.records).unlink()
        run.wait_for_step(run.last_step() + CHECKPOINT_EVERY)
        super().strike(run, attempt, moments)

    def check_end(self, run, end):
        require_killed(end, processes=run.processes)
        name = _shard(run.materials.records).name
        require_clear_stop(run.start().finish(), 2, name)

    def mend(self, run):
        shard = _shard(run.materials.records)
        (run.records / shard.name).write_bytes(shard.read_bytes())
