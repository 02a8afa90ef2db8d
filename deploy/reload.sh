#!/usr/bin/env bash
# Let Triton read the model repository again without a lost request: start a second Triton beside the
# running one, wait until every model in the second one answers, then remove the first one. If the second
# one does not become healthy, the first one stays. The arguments are docker compose's own, such as -f FILE.
set -euo pipefail

ids() { docker compose "$@" ps --all --quiet triton; }

old=$(ids "$@")
if [ -z "$old" ]; then
  echo "no Triton runs here: docker compose up" >&2
  exit 1
fi
if ! docker compose "$@" up --detach --no-deps --no-recreate --wait \
  --scale "triton=$(($(wc -w <<<"$old") + 1))" triton; then
  new=$(comm -13 <(sort <<<"$old") <(ids "$@" | sort))
  [ -z "$new" ] || docker logs --tail 20 "$new" || true
  [ -z "$new" ] || docker rm --force "$new" >/dev/null
  echo "the new Triton did not become healthy and was removed; the old one serves on" >&2
  exit 1
fi
# The old Triton is killed, not stopped: a Triton that stops refuses requests for some seconds. If a call
# is cut off, the gateway sends it again to the new Triton.
for id in $old; do
  docker kill "$id" >/dev/null || true
  docker rm --force "$id" >/dev/null
done
echo "Triton has read the model repository again"
