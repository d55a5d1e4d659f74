"""What the sandbox's Rucio takes for a name; all that is not here comes from ``rucio.common.schema.generic``.

Rucio's generic schema allows ASCII letters, digits, ``/``, ``.``, ``-`` and ``_`` in a name. People's files in a
cloud have spaces, umlauts and percent signs, and nothing in Rucio's core depends on their absence.
"""

from __future__ import annotations

NAME = {
    "description": "Data Identifier name",
    "type": "string",
    "maxLength": 250,  # the width of the column in Rucio's tables
    # Refused: control characters, which break line-based listings; ":" divides scope and name in commands; & < and "
    # because Rucio's server puts names into metalink answers unescaped, which no client can read then (41.5.1,
    # web/rest/flaskapi/v1/replicas.py). The first character is not "." as in the generic schema, so that a name is
    # never "." or "..", and not "-", which commands take for an option.
    "pattern": r'^(?![.\-])[^\x00-\x1f\x7f:&<"]+$',
}

# Of all values of a schema module this one is read without falling back to the generic one
# (rucio.common.schema.get_scope_name_regexps).
SCOPE_NAME_REGEXP = r"/([^/]+)/(.*)"

# Rucio looks a schema up here first and goes to the generic module where it finds none; "name" is the only one
# that stands for NAME itself, the others refer to it.
SCHEMAS = {"name": NAME}
