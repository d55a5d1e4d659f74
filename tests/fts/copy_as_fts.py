"""A program: one copy with gfal2, as FTS makes it; run by the Python that has Debian's gfal2.

FTS' own ``fts_url_copy`` is a C++ program over the same calls: each token goes into gfal2's map of credentials under
the prefix that it is for, then ``filecopy``. Reads the job as JSON from stdin, so that no token is in a command line;
writes what came of it as JSON to stdout.
"""

import json
import sys

import gfal2  # type: ignore[import-not-found]  # Debian's, for the system's Python only


def main() -> None:
    job = json.load(sys.stdin)
    context = gfal2.creat_context()
    for name, value in job["options"].items():
        if isinstance(value, bool):
            context.set_opt_boolean("HTTP PLUGIN", name, value)
        else:
            context.set_opt_string("HTTP PLUGIN", name, value)
    for prefix, token in job["tokens"].items():
        gfal2.cred_set(context, prefix, gfal2.cred_new("BEARER", token))
    parameters = context.transfer_parameters()
    parameters.create_parent = True
    parameters.overwrite = job["overwrite"]
    parameters.timeout = 60
    if job["checksum"]:
        parameters.set_checksum(gfal2.checksum_mode.both, "ADLER32", job["checksum"])
    try:
        context.filecopy(parameters, job["source"], job["destination"])
        outcome = {"code": 0, "message": ""}
    except gfal2.GError as error:
        outcome = {"code": error.code, "message": error.message}
    json.dump(outcome, sys.stdout)


main()
