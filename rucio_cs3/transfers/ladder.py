"""One transfer between two sites, from the first look to the proof; knows no Rucio.

The ladder, which :func:`transfer_one` is::

    a first attempt, a small file        the copy at once: the looks would cost more than it does
    otherwise: is it there already?      then it is done: an earlier attempt's report was lost
    does a wrong one stand there?        transfers.standing: a leftover; the claim says whether it may go
    folders, then the copy               transfers.copies, to a hidden sibling, in the mode that transfers.modes chose
    proof                                transfers.proof: size, then checksum; a server's "success" is only a claim
    its name                             which only a proven file gets; nothing that stands there is replaced
    on failure                           transfers.aftermath: the hidden sibling goes; the source is only read

The sites are :class:`rucio_cs3.transfers.ends.End`. Job, claim and outcome are in :mod:`rucio_cs3.transfers.jobs`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.namespace import OPEN_OUTCOME
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.transfers import aftermath, copies, modes
from rucio_cs3.transfers.ends import End, Landing, NothingToLend
from rucio_cs3.transfers.jobs import Claim, ClaimLost, Job, Outcome, RequestGone, State, Stopping, Watch
from rucio_cs3.transfers.leftovers import Leftovers
from rucio_cs3.transfers.modes import Mode
from rucio_cs3.transfers.proof import NothingThere, find_fault, prove
from rucio_cs3.transfers.removal import is_copied
from rucio_cs3.transfers.standing import is_there, look_at_source

__all__ = ["Claim", "ClaimLost", "Job", "Outcome", "RequestGone", "State", "Stopping", "Watch", "transfer_one"]

_log = logging.getLogger(__name__)

#: Files up to this size are copied before anybody has looked whether they are there already, in bytes: to copy one in
#: vain takes less than a second.
UNSEEN_BYTES = 16 * 1024 * 1024

#: A source that has proven longer ago that it does third-party copies is asked again before a push, in seconds: one
#: that does them no more would make a copy within itself, where nobody looks for it (Reva v3.12.1).
_PUSH_PROOF_S = 60.0

#: Pauses before a proven file is given its name once more, in seconds, where the site could not be reached: it was
#: much work to bring it.
_NAME_AGAIN_S = (0.5, 1.5, 4.0)

#: Copies between the sites themselves, with a token of each.
_BY_LENT_TOKENS = (Mode.PULL, Mode.PUSH)

#: What a COPY with a dead token may end with: Reva v3.12.1 says 401 to its own and passes on that of a pull's source;
#: of a push to a destination that says 401 it claims success, so that there is no file (a ServerFault, too).
_MAY_BE_A_TOKEN = (errors.Unauthenticated, errors.ServerFault)

#: Answers to a pull that a look at the ends may change or explain. The destination has written nothing then.
_LOOK = (errors.NotFound, errors.Unauthenticated, errors.Unsupported)


class _NotAsked(errors.Unsupported):
    """Nobody was asked for the copy, so nobody has shown anything by it."""


def transfer_one(job: Job, source: End, destination: End, claim: Claim, watch: Watch) -> Outcome:
    """Bring one file over and prove it; all of this client's errors end in the outcome.

    Where a token that one of the sites was given has died meanwhile, it is done once more with new ones.

    Idempotent: after a crash at any instant it may be called again for the same job.
    """
    attempt = _Attempt(job, source, destination, claim, watch)
    outcome = attempt.run()
    if outcome.mode in _BY_LENT_TOKENS and isinstance(outcome.error, _MAY_BE_A_TOKEN):
        # Over CS3 a dead token is found and replaced; of a COPY it is known only afterwards, if at all.
        refused = _refused_login(source) or _refused_login(destination)
        if refused is not None:
            # It says whose login it is, which no COPY does.
            return replace(outcome, reason=str(refused), error=refused)
        if source.token_has_died or attempt.landing.token_has_died:
            _log.warning("%s: copying again, because a token has died (%s)", job.request_id, outcome.reason)
            outcome = _Attempt(replace(job, resumed=True), source, destination, claim, watch).run()
    return outcome


def _refused_login(end: End) -> errors.Unauthenticated | None:
    """A look that finds out whether the site still knows who we are, and has a new token where the old one has died."""
    try:
        end.stat()
    except errors.Unauthenticated as exc:
        return exc
    except errors.CS3Error:
        pass  # whatever else is wrong has been said, or will be
    return None


class _Attempt:
    """One copy of one file, with its own landing."""

    def __init__(self, job: Job, source: End, destination: End, claim: Claim, watch: Watch) -> None:
        self.landing: Landing = destination.landing()
        self._job = job
        self._source = source
        self._destination = destination
        self._claim = claim
        self._watch = watch
        self._leftovers = Leftovers(job, destination)
        # None while nothing was begun.
        self._mode: Mode | None = None
        # Something may stand in the landing.
        self._landed = False
        # Something of it may yet come into being.
        self._may_come = False
        # What has landed may have the name already.
        self._may_be_named = False

    def run(self) -> Outcome:
        try:
            self._claim.check()
            if self._source.is_same_place(self._destination):
                # Two RSEs over one folder: the "leftover" to delete would be the source itself.
                raise errors.InvalidRequest(
                    "source and destination are the same file", operation="COPY", target=self._destination.place
                )
            file = self._copied_unseen() if self._may_copy_unseen() else None
            if file is None:
                self._claim.check()
                self._leftovers.find()
                if is_there(self._job, self._source, self._destination, self._claim):
                    self._leftovers.clear()
                    return Outcome(state=State.DONE)
                file = self._left_whole()
                self._leftovers.clear()
            if file is None:
                file = self._copied(self._order())
            # A rule may have been deleted while its file was on the way, and Rucio's reaper may have found nothing yet
            # to delete: what nobody knows of must not stay.
            self._claim.confirm()
            copied = self._take_name(file)
        except errors.CS3Error as exc:
            return self._failed(exc)
        # OpenCloud may have had one in post-processing before.
        self._leftovers.clear()
        if copied:
            return Outcome(state=State.DONE, copied=True, mode=self._mode, file=file)
        aftermath.clear(self._job, self.landing, may_come=False)
        return Outcome(state=State.DONE, mode=self._mode)

    def _failed(self, error: errors.CS3Error) -> Outcome:
        if self._landed:
            return aftermath.after_failure(error, self._job, self.landing, self._mode, may_come=self._may_come)
        if isinstance(error, Stopping) and self._job.resumed:
            # Back in the queue, nothing would tell that somebody has begun it, and that there may be leftovers.
            return Outcome(state=State.ABANDONED, reason=str(error), error=error)
        return aftermath.not_begun(error)

    # -- before the copy ----------------------------------------------------------------------------------

    def _may_copy_unseen(self) -> bool:
        """Whether the copy may be asked for at once: by a pull, which a server that does none refuses in so many words.
        Not where an earlier attempt may have left something, nor where it would be much work in vain.
        """
        job = self._job
        if job.attempt or job.resumed or job.size_bytes > UNSEEN_BYTES:
            return False
        try:
            wish = modes.agree(self._source.wish, self._destination.wish)
            return wish == "pull" or (wish == "auto" and self._destination.speaks_tpc())
        except errors.CS3Error:
            return False  # whatever is wrong is found again, and said

    def _copied_unseen(self) -> FileInfo | None:
        """
        :returns: None where both ends have to be looked at; nothing has come then.
        """
        self._destination.make_parents()
        try:
            return self._copied([Mode.PULL])
        except _LOOK as exc:
            _log.info("%s: looking before another copy: %s", self._job.request_id, exc)
        except NothingThere:
            if not self._folder_was_missing():
                raise
        except errors.ServerFault:
            self._blame_a_missing_source()
            raise
        # XRootD 5.5.3 makes an empty file before it asks the source.
        if not aftermath.clear(self._job, self.landing, may_come=False):
            self._leftovers.add(self.landing)
        self.landing = self._destination.landing()
        self._mode, self._landed = None, False
        return None

    def _blame_a_missing_source(self) -> None:
        """XRootD 5.5.3 says no more of it than that the copy failed.

        :raises NotFound: when the source has no such file.
        """
        try:
            look_at_source(self._source)
        except errors.NotFound:
            raise
        except errors.CS3Error as exc:
            _log.info("%s: could not look at %s: %s", self._job.request_id, self._source.place, exc)

    def _folder_was_missing(self) -> bool:
        """Whether the folder that was known to be there is not: a server that stores nothing then claims success, too
        (Reva v3.12.1).
        """
        job, destination = self._job, self._destination
        try:
            missing = destination.make_parents(anew=True)
        except errors.CS3Error as exc:
            _log.info("%s: could not look for the folder of %s: %s", job.request_id, destination.place, exc)
            return False
        if missing:
            _log.warning("%s: the folder of %s was gone; copying again", job.request_id, destination.place)
        return missing

    def _order(self) -> Sequence[Mode]:
        """The modes to try."""
        job, source, destination = self._job, self._source, self._destination
        # Over CS3 a token that the source no longer accepts is found and replaced; over COPY nobody would notice,
        # and all transfers from there would fail until the token's own end. It also finds what is missing.
        look_at_source(source)
        order = modes.in_order(
            modes.agree(source.wish, destination.wish),
            source_speaks_tpc=source.speaks_tpc,
            destination_speaks_tpc=destination.speaks_tpc,
            attempt=job.attempt,
        )
        return modes.without_bytes(order) if job.size_bytes == 0 else order

    def _left_whole(self) -> FileInfo | None:
        """What an earlier attempt has brought whole, and nobody has named."""
        taken = self._leftovers.take()
        if taken is None:
            return None
        self.landing, file = taken
        self._landed = True
        return file

    # -- the copy, and its proof --------------------------------------------------------------------------

    def _copied(self, order: Sequence[Mode]) -> FileInfo:
        """Copy, and prove what has landed."""
        over = False
        try:
            self._copy(order)
            over = True
            self._watch.copied()
            return prove(self._job, self.landing)
        except errors.CS3Error as exc:
            self._may_come = not over and aftermath.may_go_on(exc, self._mode)
            # Nobody goes on with a relay to its end, and a copy that was cancelled is not wanted any more.
            wait = self._may_come and self._mode is not Mode.RELAY and not isinstance(exc, errors.Cancelled)
            try:
                file = aftermath.arrived(exc, self._job, self.landing, wait=wait)
            except errors.NotFound:
                self._may_come = self._may_come and not wait
                raise exc from None
            if file is None:
                raise
            return file

    def _copy(self, order: Sequence[Mode]) -> None:
        """Copy in the first mode that the servers take."""

        def progress(total_bytes: int) -> None:
            self._claim.check()
            self._watch.moved(total_bytes)

        job = self._job
        for mode in order:
            self._mode, self._landed = mode, True
            self._watch.began(mode)
            try:
                if mode is Mode.PUSH:
                    self._look_before_push()
                copies.COPIES[mode](job.size_bytes, job.checksums, self._source, self.landing, progress)
            except (errors.Unsupported, errors.ProtocolViolation) as exc:
                # The probe is older than this answer; without a token to lend, nobody was asked.
                shown = not isinstance(exc, (NothingToLend, _NotAsked))
                if mode is Mode.PULL and shown:
                    self._destination.refused_tpc()
                elif mode is Mode.PUSH and shown:
                    self._source.refused_tpc()
                # Only Unsupported means that nothing was written.
                if mode is order[-1] or not isinstance(exc, errors.Unsupported):
                    raise
                _log.warning("%s: no %s (%s); trying another way", job.request_id, mode.value, exc)
            else:
                return

    def _look_before_push(self) -> None:
        """
        :raises Unsupported: when the source does no third-party copies any more.
        """
        try:
            speaks = self._source.speaks_tpc(max_age_s=_PUSH_PROOF_S)
        except errors.CS3Error as exc:
            if exc.retry_after_s is not None:
                raise
            raise _NotAsked(f"the source cannot prove now that it does third-party copies: {exc.message}") from exc
        if not speaks:
            raise _NotAsked("the source does no third-party copies any more, so it cannot push; see cs3_transfer_mode")

    # -- its name -----------------------------------------------------------------------------------------

    def _take_name(self, file: FileInfo) -> bool:
        """Give the proven file its name.

        :param file: what the proof found.
        :returns: False where the right file stands there already, which it does not replace.
        """
        for pause_s in _NAME_AGAIN_S:
            try:
                return self._named_or_there(file)
            except OPEN_OUTCOME as exc:
                if exc.retry_after_s is not None:
                    raise
                _log.info("%s: naming it again: %s", self._job.request_id, exc)
            try:
                self._claim.check()
            except Stopping:
                pass  # it is there and proven; nothing is left to stop
            except errors.Cancelled:
                if self._is_named(file):
                    return True  # whoever reports finds that nobody wants it, and removes it
                raise
            time.sleep(pause_s)
        return self._named_or_there(file)

    def _named_or_there(self, file: FileInfo) -> bool:
        try:
            self.landing.take_name(file)
            return True
        except OPEN_OUTCOME:
            self._may_be_named = True
            raise
        except (errors.AlreadyExists, errors.NotFound, errors.ServerFault) as exc:
            if self._is_named(file):
                return True
            if not isinstance(exc, errors.AlreadyExists):
                raise
            _log.info("%s: %s", self._job.request_id, exc)
        if is_there(self._job, self._source, self._destination, self._claim):
            return False
        self._claim.check()
        self.landing.take_name(file)
        return True

    def _is_named(self, file: FileInfo) -> bool:
        """Whether an earlier trial, whose answer was lost, has given it its name."""
        if not self._may_be_named:
            return False
        try:
            standing = self._destination.settled()
            is_ours = is_copied(file, standing, self._destination)
            return is_ours and find_fault(self._job, self._destination, standing) is None
        except errors.CS3Error as exc:
            _log.info("%s: whether it has its name cannot be told: %s", self._job.request_id, exc)
            return False
