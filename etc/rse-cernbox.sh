#!/usr/bin/env bash
# Makes a folder of a CERNBox or Reva cloud an RSE. Needs a working rucio command of an account that may add RSEs.
# Credentials are not set here: put them into rse-accounts.cfg, see rse-accounts.cfg.example.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: rse-cernbox.sh RSE WEBDAV_HOST FOLDER GATEWAY ROOT

  RSE          name of the new RSE, such as CERNBOX
  WEBDAV_HOST  host[:port] of the cloud's web address, such as cernbox.example.org
  FOLDER       folder below /remote.php/webdav, such as eos/project/r/rucio
  GATEWAY      host:port of the CS3 gateway, such as cernbox.example.org:9142
  ROOT         CS3 path that /remote.php/webdav stands for: / or, with another webdav_namespace, that path

Environment: ACCOUNT   who may write there (default: the account of the rucio command)
             IMPL      protocol class (default: rucio_cs3.protocol.Default)
             EXTENDED  more settings as JSON members, such as '"cs3_gateway_tls": false, "cs3_allow_plaintext": true'
TEXT
}

if [ $# -ne 5 ]; then
    usage >&2
    exit 2
fi

rse=$1
host=${2%%:*}
port=443
case $2 in
    *:*) port=${2##*:} ;;
esac
folder=${3#/}
folder=${folder%/}
gateway=$4
root=$5
account=${ACCOUNT:-$(rucio whoami | awk '$1 == "account" { print $3 }')}

domains='{"lan": {"read": 1, "write": 1, "delete": 1},
          "wan": {"read": 1, "write": 1, "delete": 1, "third_party_copy_read": 1, "third_party_copy_write": 1}}'
settings="{\"cs3_gateway\": \"$gateway\", \"cs3_root\": \"$root\"${EXTENDED:+, $EXTENDED}}"

rucio rse add "$rse"
rucio rse protocol add "$rse" --scheme davs --hostname "$host" --port "$port" \
    --prefix "/remote.php/webdav/$folder/" --impl "${IMPL:-rucio_cs3.protocol.Default}" \
    --domain-json "$domains" --extended-attributes-json "$settings"
# Without this, or protocol_stat_retries = 0 at each client, Rucio waits 63 seconds for each empty file.
rucio rse attribute set "$rse" --key skip_upload_stat --value True
rucio account limit set "$account" --rse "$rse" --bytes infinity
rucio rse show "$rse"

cat <<TEXT

Next:
  1. credentials of $rse into rse-accounts.cfg
  2. for transfers: rucio rse distance set $rse OTHER --distance 1 --bidirectional
TEXT
