"""The verbs that keep a job's results or remove old ones."""

from __future__ import annotations

import attrs

from appliance.control.verb import Answer, Asked, verb
from appliance.errors import BadRequest


@verb("results-keep")
@attrs.frozen(kw_only=True)
class ResultsKeep:
    """Keeps a job's results for good, or allows their removal.  Only its submitter or root may."""

    job: str
    on: bool = True

    async def do(self, asked: Asked) -> Answer:
        """Returns {"job", "kept"}."""
        job = await asked.lab.scheduler.find(self.job)
        asked.only_submitter(job, "keeps")
        await asked.lab.retention.keep(job.id, on=self.on, user=asked.user)
        return {"job": job.id, "kept": self.on}


@verb("results-gc")
@attrs.frozen(kw_only=True)
class ResultsGc:
    """Removes results that are older than `older` seconds and that nobody keeps.  Only root may."""

    older: float
    dry_run: bool = False  # only say what would be removed

    async def do(self, asked: Asked) -> Answer:
        """Returns {"jobs": [{"job", "root", "bytes"}]}."""
        asked.only_root("removes results")
        if self.older < 0:
            raise BadRequest("older: must be seconds")
        return {"jobs": await asked.lab.retention.sweep(self.older, dry_run=self.dry_run)}
