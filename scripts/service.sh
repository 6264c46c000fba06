# For scripts that need a running service: `. scripts/service.sh PROGRAM serve OPTION...` starts one on a port of its own, ends it
# when the script ends, and sets `address`, `service` (its process) and `log` (a file of what it says).
log=$(mktemp)
coproc SERVICE { exec "$@" --listen 127.0.0.1:0 2> "$log"; }
service=$SERVICE_PID
trap 'kill "$service" 2> /dev/null || true; rm -f "$log" "$log".*' EXIT
# The address is its last line before it serves.
address=
while read -r -t 60 line <&"${SERVICE[0]}"; do
  case $line in
    "open "*) address=${line#open }; break ;;
  esac
done
[ -n "$address" ] || { cat "$log" >&2; exit 1; }
