# What the checks before a start ask of another machine: one function for each check.
# It is run as: sh -c THIS sh FUNCTION ARGUMENT...
# A line of the answer begins with "=" and a word; whatever else is printed is nobody's answer.
# The caller receives the last 4 KiB only, so an answer is short.
# POSIX sh: it runs in dash, bash and busybox, with the tools of busybox, on Linux.

export LC_ALL=C
PATH=${PATH:-/bin}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin

# Why a path can't be looked at, links followed, in the words of strerror(3); empty where it can.
why_not() {
    why=$(ls -dL -- "$1" 2>&1 >/dev/null) && why=
    printf '%s' "${why##*: }"
}

is_absent() {
    [ "$1" = 'No such file or directory' ] || [ "$1" = 'Not a directory' ]
}

absolute() {
    case $1 in
    /*) printf '%s' "$1" ;;
    *) printf '%s' "${PWD%/}/$1" ;;
    esac
}

above() {
    up=${1%/*}
    printf '%s' "${up:-/}"
}

# --- a file: its path ---------------------------------------------------------------------------

file_at() {
    printf '=uid %s\n' "$(id -u)"
    why=$(why_not "$1")
    if is_absent "$why"; then
        absent_file "$1"
    elif [ -n "$why" ]; then
        printf '=problem %s\n' "$why"
    elif [ -d "$1" ]; then
        echo '=kind directory'
    elif [ ! -f "$1" ]; then
        echo '=kind other'
    # What its rights show may be closed all the same; only open(2) knows.
    elif why=$({ true <"$1"; } 2>&1); then
        echo '=kind file'
        # Not wc: that of busybox reads the file to its end.
        ls -dlLn -- "$1" | awk 'NR == 1 { print "=size " $5 }'
    else
        printf '=problem %s\n' "${why##*: }"
    fi
}

absent_file() {
    echo '=kind absent'
    [ ! -L "$1" ] || printf '=link %s\n' "$(readlink "$1")"
    place=$(absolute "$1")
    printf '=parent %s\n' "$(above "$place")"
    while [ ! -e "$place" ] && [ "$place" != / ]; do
        place=$(above "$place")
    done
    printf '=nearest %s\n' "$place"
}

# --- a disk: a path on it -----------------------------------------------------------------------

disk_of() {
    place=$(absolute "$1")
    while why=$(why_not "$place"); is_absent "$why" && [ "$place" != / ]; do
        place=$(above "$place")
    done
    if [ -n "$why" ]; then
        printf '=problem %s\n' "$why"
        return
    fi
    printf '=place %s\n' "$place"
    if said=$(df -Pk -- "$place" 2>&1); then
        printf '%s\n' "$said" | awk 'END { print "=df " $0 }'
    else
        printf '=problem %s\n' "${said##*: }"
    fi
}

# --- memory -------------------------------------------------------------------------------------

memory() {
    awk '$1 == "MemAvailable:" { print "=available " $2 }' /proc/meminfo
    group=$(sed -n 's/^0:://p' /proc/self/cgroup 2>/dev/null)
    case $group/ in
    /../* | */../*) return ;; # It lies outside of what is to be seen from here.
    /*) ;;
    *) return ;;
    esac
    # Where the hierarchy can be seen: the group that is seen at the top, and the place.
    awk '/ - cgroup2 / { print $4, $5 }' /proc/self/mountinfo | while read -r root point; do
        root=$(printf '%b' "$root")
        point=$(printf '%b' "$point")
        groups_at "${root%/}" "$point"
    done
}

groups_at() {
    case $group/ in
    "$1"/*) below=${group#"$1"} ;;
    *) return ;;
    esac
    place=$2${below%/}
    # A limit binds all below, so each group above counts too.
    while :; do
        limits "$place"
        [ "$place" != "$2" ] || break
        place=${place%/*}
    done
}

limits() {
    max=$(cat "$1/memory.max" 2>/dev/null)
    high=$(cat "$1/memory.high" 2>/dev/null)
    [ "${max:-max}" = max ] && [ "${high:-max}" = max ] && return
    used=$(cat "$1/memory.current" 2>/dev/null) || return
    cache=$(awk '$1 == "inactive_file" { print $2 }' "$1/memory.stat" 2>/dev/null)
    printf '=group %s %s %s %s %s\n' "${max:-max}" "${high:-max}" "$used" "${cache:-0}" "$1"
}

# --- a port: its number in hexadecimal, and addresses as the tables of local addresses have them --

port() {
    awk '$1 == "CapEff:" { print "=capabilities " $2 }' /proc/self/status
    printf '=unprivileged %s\n' \
        "$(cat /proc/sys/net/ipv4/ip_unprivileged_port_start 2>/dev/null || echo 1024)"
    number=$1
    shift
    for address in "$@"; do
        ! local_addresses | grep -qxF -e "$address" || printf '=address %s\n' "$address"
    done
    [ ! -r /proc/net/fib_trie ] || echo '=address known'
    told=' '
    listeners "$number" | sort -u -k 2,3 | head -n 20 | while read -r word family address inode; do
        pid=$(main_holder "$inode")
        printf '%s %s %s %s\n' "$word" "$family" "$address" "${pid:-0}"
        case $told in
        *" ${pid:-0} "* | ' '*' '*' '*' '*' ') ;; # Told already, or enough of them.
        *) [ -z "$pid" ] || command_of "$pid" ;;
        esac
        told="$told${pid:-0} "
    done
}

local_addresses() {
    awk '$1 == "|--" { address = $2 } $2 == "host" && $3 == "LOCAL" { print address }' \
        /proc/net/fib_trie 2>/dev/null
    awk '{ print $1 }' /proc/net/if_inet6 2>/dev/null
}

# Those that listen (0A) at a port, whatever their address: proc_net(5).
listeners() {
    for family in 4 6; do
        table=/proc/net/tcp
        [ "$family" = 4 ] || table=/proc/net/tcp6
        awk -v port=":$1" -v family="$family" '
            $4 == "0A" && substr($2, length($2) - 4) == port {
                print "=listener", family, substr($2, 1, length($2) - 5), $10
            }' "$table" 2>/dev/null
    done
}

# Of the processes that have a socket open, a server and its workers, the one that the others come
# from: its parent is none of them.
main_holder() {
    ls -l /proc/[0-9]*/fd 2>/dev/null | awk -v socket="socket:[$1]" '
        /^\/proc\// { split($0, parts, "/"); pid = parts[3] }
        $NF == socket { holders[pid] = 1 }
        END {
            for (pid in holders) {
                file = "/proc/" pid "/stat"
                if ((getline line < file) <= 0) continue
                # What stands before the last bracket is a name, with whatever in it.
                sub(/.*\) /, "", line)
                split(line, fields, " ")
                parent[pid] = fields[2]; began[pid] = fields[20]
            }
            for (pid in began)
                if (!(parent[pid] in began) && (first == "" || began[pid] + 0 < began[first] + 0))
                    first = pid
            if (first != "") print first
        }'
}

command_of() {
    said=$(tr '\000\n' '  ' <"/proc/$1/cmdline" 2>/dev/null | dd bs=600 count=1 2>/dev/null)
    [ -n "$said" ] || said="[$(cat "/proc/$1/comm" 2>/dev/null)]"
    printf '=command %s %s\n' "$1" "$said"
}

# --- GPUs ---------------------------------------------------------------------------------------

gpus() {
    command -v nvidia-smi >/dev/null || {
        echo '=missing nvidia-smi'
        return
    }
    said=$(nvidia-smi --query-gpu=index,uuid,name,memory.free,memory.total \
        --format=csv,noheader,nounits 2>&1)
    printf '=status %s\n' "$?"
    printf '%s\n' "$said" | sed 's/^/=gpu /'
}

# What is asked, and the machine's name; the last line proves that nothing is missing.
printf '=host %s\n' "$(uname -n)"
"$@"
echo '=end'
