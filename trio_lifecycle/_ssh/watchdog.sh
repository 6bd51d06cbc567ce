# Ends what a launcher has left, once that has ended itself, by whatever means: the waiter, and of an
# owned daemon its whole tree and its private directory. So does it when no heartbeat has come for
# too long. It is in a session of its own, lest it be killed with the launcher's.
#
# With its standard input it reads the pipe of life: what the process-to-be and the launcher write
# there, and the ticks of a clock, for POSIX sh can't read with a limit. Its arguments are: token,
# launcher, waiter, directory, seconds without a heartbeat, mark in the environment, ladder.

trap "" HUP INT TERM QUIT
exec 4>&- 5>&- 6<&- 7>&- 8<&- 9>&-
trio_token=$1 trio_launcher=$2 trio_waiter=$3 trio_dir=$4 trio_limit=$5 trio_mark=$6
shift 6
trio_pid= trio_from= trio_noted= trio_silent=0

trio_start_of() {
    trio_start=
    read -r trio_stat 2>/dev/null <"/proc/$1/stat" || return
    trio_fields ${trio_stat##*) }
}
trio_fields() { shift 19; trio_start=$1; }

# Prints pid:start of each process of the tree that lives: of its session, its descendants, and
# those that were either once.
trio_look() {
    cat /proc/[0-9]*/stat 2>/dev/null | awk -v pid="$trio_pid" -v from="$trio_from" \
        -v noted="$trio_noted" "$trio_family"
}
trio_family='
BEGIN { n = split(noted, known, " "); for (i = 1; i <= n; i++) old[known[i]] = 1 }
{
    id = $1; sub(/^.*[)] /, "")
    if ($1 == "Z" || $1 == "X") next
    key[id] = id ":" $20; parent[id] = $2; session[id] = $4
    if (id == pid && $20 != from) other = 1
}
END {
    for (id in key) if (key[id] in old || key[id] == pid ":" from || (session[id] == pid && !other)) tree[id] = 1
    do { more = 0
        for (id in key) if (!(id in tree) && (parent[id] in tree)) { tree[id] = 1; more = 1 }
    } while (more)
    for (id in tree) printf "%s ", key[id]
}'

# Those who have left it bear its mark still, unless they have emptied their environment.
trio_note() {
    [ -n "$trio_pid" ] || return
    if [ "$1" = all ] && [ -n "$trio_mark" ]; then
        for trio_file in $(grep -ls -e "$trio_mark" /proc/[0-9]*/environ 2>/dev/null); do
            trio_id=${trio_file#/proc/} trio_id=${trio_id%/environ}
            [ "$trio_id" != $$ ] && trio_start_of "$trio_id" || continue
            trio_noted="$trio_noted $trio_id:$trio_start"
        done
    fi
    trio_noted=$(trio_look)
}

trio_signal() {
    for trio_one in $trio_noted; do
        trio_start_of "${trio_one%:*}" && [ "$trio_start" = "${trio_one#*:}" ] &&
            kill -s "$1" "${trio_one%:*}"
    done 2>/dev/null
}

# Tenths of a second, where sleep knows them.
trio_nap() {
    sleep 0.1 2>/dev/null || sleep 1
}

trio_wait_gone() {
    trio_left=$1
    while trio_note all && [ -n "$trio_noted" ]; do
        [ "$trio_left" -gt 0 ] || return 1
        trio_left=$((trio_left - 1))
        trio_nap
    done
}

trio_end_tree() {
    trio_note all
    while [ $# -gt 1 ]; do
        trio_signal "$1"
        trio_signal CONT
        trio_wait_gone "$2" && return
        shift 2
    done
    trio_more=50
    while trio_signal KILL; ! trio_wait_gone 1 && [ "$trio_more" -gt 0 ]; do
        trio_more=$((trio_more - 1))
    done
}

# A number may have become another process's by the time.
trio_kill() {
    trio_start_of "${1%:*}" && [ "$trio_start" = "${1#*:}" ] && kill -s KILL "${1%:*}"
}

trio_start_of "$trio_waiter"
trio_waiter=$trio_waiter:$trio_start
trio_start_of "$trio_launcher"
trio_launcher=$trio_launcher:$trio_start
if [ "$trio_limit" -gt 0 ]; then
    while sleep 1 && echo tick 2>/dev/null >"/proc/$$/fd/0"; do :; done >/dev/null 2>&1 3>&- &
fi
while read -r trio_word trio_a trio_b; do
    case $trio_word in
        pid) trio_pid=$trio_a trio_from=$trio_b ;;
        .)
            trio_silent=0
            trio_pid=$trio_a trio_from=$trio_b
            ;;
        tick)
            trio_note
            trio_silent=$((trio_silent + 1))
            [ "$trio_silent" -le "$trio_limit" ] || break
            ;;
    esac
done
if [ "$trio_limit" -gt 0 ]; then
    trio_kill "$trio_launcher"
    trio_end_tree "$@"
    trio_nap
fi
trio_kill "$trio_waiter"
[ -z "$trio_dir" ] || rm -rf "$trio_dir"
if [ "$trio_limit" -gt 0 ]; then
    printf "%s gone\n" "$trio_token" >&3
    # The clock sleeps, and would for a second more.
    kill -s KILL 0
fi
