# How the checks beside this file tell what they do; read by them, with the folder of the log in $out.
step() { printf '%-62s' "$1"; }
# Runs quietly, prints what was said only if it fails.
try() {
  local began=$SECONDS
  if "$@" >"$out/log" 2>&1; then
    echo "ok  $((SECONDS - began)) s"
  else
    local status=$?
    echo "FAILED ($status): $*"
    tail -n 40 "$out/log"
    exit 1
  fi
}
