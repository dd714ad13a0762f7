#!/bin/sh
# A Postfix of its own, with one service: smtpd, of the type pass, on the socket
# FOLDER/queue/private/smtpd. It makes FOLDER, listens on no port, touches no
# other Postfix, logs on standard output, and removes FOLDER when it is stopped.
#
#   sudo test/peers/postfix.sh FOLDER

folder=$1
[ $# = 1 ] || {
  echo "Usage: $0 FOLDER" >&2
  exit 2
}
mkdir "$folder" || exit 1
folder=$(cd "$folder" && pwd)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' INT TERM HUP

# Its processes run as the user postfix.
chmod 711 "$folder"
mkdir "$folder/queue" "$folder/data" "$folder/conf"
chown postfix "$folder/data" || exit 1

cat >"$folder/conf/main.cf" <<END
compatibility_level = 3.6
queue_directory = $folder/queue
data_directory = $folder/data
maillog_file = /dev/stdout
myhostname = mail.example
mydestination =
local_recipient_maps =
alias_maps =
smtputf8_enable = no
# Names of clients: no server is asked. What counts clients: not started.
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
END
cat >"$folder/conf/master.cf" <<END
smtpd   pass       - - n - - smtpd
postlog unix-dgram n - n - 1 postlogd
END

# The log goes through a pipe: Postfix opens /dev/stdout by that name, which
# fails if it is a socket.
mkfifo "$folder/log"
cat "$folder/log" &
log=$!
export MAIL_CONFIG="$folder/conf"
exec >"$folder/log" 2>&1
postfix check || exit

# master(8) becomes the leader of a session, which Ctrl-C does not reach. Should
# this script be killed, it ends by itself after 600 seconds.
"$(postconf -hx daemon_directory)/master" -s -e 600 &
master=$!
trap 'kill "$master"' INT TERM HUP
wait "$master"
wait "$master" 2>/dev/null # not "Terminated"
exec >/dev/null 2>&1
wait "$log"
