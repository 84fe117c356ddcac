"""The instructor's settings of the engine: `c.Sandbox.<name> = ...` in nbgrader_config.py."""

from __future__ import annotations

from traitlets import Bool, Float, Integer
from traitlets.config import Configurable

from autograder.engine.nursery import Limit
from autograder.engine.worker.jail import Bounds

__all__ = ["Sandbox"]

MIB = 1 << 20


class Sandbox(Configurable):
    """What a submission may use while it is graded."""

    jail = Bool(
        True, help="Run student code in a jail. False grades without one, and every report says so."
    ).tag(config=True)
    call_seconds = Float(10.0, help="Wall clock for one call of a student's function.").tag(config=True)
    cell_seconds = Float(30.0, help="Wall clock for one of the student's cells.").tag(config=True)
    submission_seconds = Float(180.0, help="Wall clock for a whole submission.").tag(config=True)
    cpu_seconds = Integer(120, help="Processor time for a whole submission.").tag(config=True)
    memory_mib = Integer(4096, help="Memory that a submission may map, beyond what torch takes.").tag(
        config=True
    )
    file_mib = Integer(32, help="Size of one file that a submission writes.").tag(config=True)
    disk_mib = Integer(64, help="Size of the folder that a submission may write to.").tag(config=True)
    processes = Integer(64, help="Processes and threads of a submission.").tag(config=True)
    reply_mib = Integer(64, help="Size of one result.").tag(config=True)
    output_mib = Integer(16, help="Size of all that a submission's cells print and draw.").tag(config=True)

    def limit(self) -> Limit:
        """The settings as the judge takes them."""
        return Limit(
            request=self.call_seconds,
            cell=self.cell_seconds,
            submission=self.submission_seconds,
            reply=self.reply_mib * MIB,
            output=self.output_mib * MIB,
            bounds=Bounds(
                cpu_seconds=self.cpu_seconds,
                address_space=self.memory_mib * MIB,
                file_size=self.file_mib * MIB,
                disk=self.disk_mib * MIB,
                processes=self.processes,
            ),
        )
