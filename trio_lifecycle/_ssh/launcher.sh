# Starts one daemon on this machine and stays with it for as long as the session lasts.
#
# It is sent to `sh -s`, after its watchdog and before what to start: variables trio_*, the functions
# trio_limits and trio_env, and the call `trio_launch PROGRAM COMMAND...`: the command is the program
# with its arguments, after env(1) perhaps. Nothing but POSIX sh, /proc and small tools is needed.
# What it says begins with the token:
#   pid PID START BOOT NAMESPACE SIZE LOG   the process stands at its gate; SIZE is its log's
#   exec                               it has become the program
#   refused TEXT                       it will not; nothing of the program has run
#   exit STATUS                        it has ended, as subprocess counts
#   left                               it runs on, and nobody here knows it any more
#   gone                               it was owned, and it and its children are ended
#
# Who is who: the shell itself hears the session and alone holds the gate's other end. The waiter is
# the daemon's parent, and says how it ended. The watchdog, in a session of its own, hears from a
# pipe that the shell has ended, by whatever means; of an owned daemon it ends the tree then, and
# when no heartbeat has come for too long.
#   3 session, 4 words of the waiter, 5 life, 6 and 7 gate, 8 exec, 9 log
#
# Whoever waits for the daemon waits for all this, and a process, a subshell too, costs up to some
# milliseconds: so there are few, and none that only makes sure that nothing has gone wrong.

trio_say() {
    printf '%s %s\n' "$trio_token" "$*" >&3
}

trio_refuse() {
    # From its start on the watchdog does this.
    [ -n "$trio_watchdog_pid" ] || [ -z "$trio_dir" ] || rm -rf "$trio_dir"
    trio_say refused "$(printf %s "$*" | tr '\n' ' ')"
    exit 70
}

# What a command that has failed complains of, by running it once more; the end of that is why.
trio_complaint() {
    trio_words=$("$@" 2>&1)
    printf %s "${trio_words##*: }"
}

# Sets trio_said to the line that a builtin says. A subshell for that would be a process.
trio_ask() {
    "$@" >&4 && IFS= read -r trio_said <&4
}

trio_begin() {
    exec 3>&1
    trio_dir= trio_watchdog_pid=
    # Messages are known by their words here; the daemon has the login's language.
    trio_spoken=${LC_ALL+set} trio_language=${LC_ALL-}
    LC_ALL=C
    export LC_ALL
    [ -r /proc/self/stat ] || trio_refuse 'there is no /proc on that machine, so it is no Linux'
    trio_open_pipes
    trio_ask umask
    trio_mask=$trio_said
    umask 077
    read -r trio_boot </proc/sys/kernel/random/boot_id
    trio_space=$(readlink /proc/self/ns/pid)
    trio_space=${trio_space#*[}
    trio_space=${trio_space%]}
    trio_ask command -v setsid && [ -x "$trio_said" ] ||
        trio_refuse 'there is no setsid on that machine; install util-linux or busybox'
    trio_setsid=$trio_said
    trio_ask command -v sh
    trio_shell=$trio_said
    case ${XDG_STATE_HOME-} in
        /*) trio_state=$XDG_STATE_HOME/trio-lifecycle ;;
        *) trio_state=${HOME:+$HOME/.local/state/trio-lifecycle} ;;
    esac
}

# A shell runs a file that the kernel can't execute as a script of its own. This is how that never
# comes about: it is a program for this machine, or a script with a first line, down to a program.
trio_check_program() {
    trio_file=$1 trio_depth=0
    while :; do
        [ -e "$trio_file" ] || trio_refuse "$trio_file: No such file or directory"
        [ ! -d "$trio_file" ] || trio_refuse "$trio_file is a directory"
        [ -x "$trio_file" ] || trio_refuse "$trio_file: Permission denied"
        [ -r "$trio_file" ] || return 0
        trio_read_header "$trio_file"
        case $trio_magic in
            2321*) ;;
            7f454c46*)
                trio_check_machine
                return
                ;;
            *) trio_refuse "$trio_file: Exec format error" ;;
        esac
        trio_depth=$((trio_depth + 1))
        [ "$trio_depth" -lt 6 ] || return 0
        IFS= read -r trio_line <"$trio_file"
        trio_line=${trio_line#??}
        trio_line=${trio_line#"${trio_line%%[!	 ]*}"}
        trio_file=${trio_line%%[	 ]*}
        [ -n "$trio_file" ] || trio_refuse "$1: Exec format error"
    done
}

# Of an ELF file (elf(5)): its first bytes; word size and order of bytes, type, sizes of two tables'
# entries; and for which machine it is.
trio_read_header() {
    trio_take_header $(od -An -v -tx1 -N 64 "$1" 2>/dev/null)
}

trio_take_header() {
    trio_magic=$1$2$3$4
    trio_shape=$5$6${17}${18}${43}${44}${55}${56}
    trio_machine=$5$6${19}${20}
}

# A program, in one piece as far as the kernel looks for that, for such a machine as this shell is.
trio_check_machine() {
    case $trio_shape in
        02010[23]00????3800 | 0202000[23]????0038) ;;
        01010[23]002000* | 0102000[23]0020*) ;;
        *) trio_refuse "$trio_file: Exec format error (it is a damaged ELF file)" ;;
    esac
    trio_theirs=$trio_machine
    trio_read_header "/proc/$$/exe"
    # The 32-bit elder of each is usually started by the same kernel.
    case $trio_theirs:$trio_machine in
        "$trio_machine:$trio_theirs" | 01010300:02013e00 | 01013e00:02013e00 | 01012800:0201b700) return ;;
    esac
    for trio_entry in /proc/sys/fs/binfmt_misc/qemu*; do
        [ ! -e "$trio_entry" ] || return 0
    done
    trio_refuse "$trio_file: Exec format error (it is for another kind of machine)"
}

# Sets trio_log to the whole path of the log, and opens it as 9.
trio_open_log() {
    if [ -z "$trio_log" ]; then
        [ -n "$trio_state" ] ||
            trio_refuse 'there is no home directory for its log; name a file there by output.to'
        trio_logs=$trio_state/logs
        [ -d "$trio_logs" ] || trio_words=$(mkdir -p "$trio_logs" 2>&1) ||
            trio_refuse "$trio_words"
        trio_check_private "$trio_logs"
        trio_log=$trio_logs/$trio_name.log
        trio_rotate
    fi
    case $trio_log in /*) ;; *) trio_log=$PWD/$trio_log ;; esac
    trio_check_log
    # Who can't open it would end by `exec`, with nothing said.
    trio_append 2>/dev/null || trio_refuse "$trio_log: $(trio_complaint trio_append)"
    exec 9>>"$trio_log"
}

trio_append() {
    { :; } >>"$trio_log"
}

trio_create() {
    { :; } >"$trio_log"
}

trio_check_private() {
    [ -d "$1" ] && [ ! -h "$1" ] || trio_refuse "$1 is a link or no directory"
    [ -O "$1" ] || trio_refuse "$1 belongs to another user"
    case $(ls -ld "$1") in
        d????w* | d???????w*) trio_refuse "$1 can be written by others; make it mode 0700" ;;
    esac
}

# Sets trio_size to what stands in the log already.
trio_check_log() {
    trio_size=0
    if [ -h "$trio_log" ]; then
        trio_refuse "$trio_log is a symbolic link; it is not followed"
    elif [ -d "$trio_log" ]; then
        trio_refuse "$trio_log is a directory"
    elif [ -f "$trio_log" ]; then
        [ -O "$trio_log" ] || trio_refuse "$trio_log belongs to another user"
        [ ! -s "$trio_log" ] || trio_take_size $(ls -ldn "$trio_log" 2>/dev/null)
    elif [ -e "$trio_log" ]; then
        [ -c "$trio_log" ] || trio_refuse "$trio_log is neither a file nor a device"
    else
        # Not through a link that comes in between: -C makes what was not there. A full disk takes a
        # new name, but no bytes.
        set -C
        trio_create 2>/dev/null || trio_refuse "$trio_log: $(trio_complaint trio_create)"
        set +C
        if ! { echo 'room?' >"$trio_log" && [ -s "$trio_log" ]; } 2>/dev/null; then
            rm -f "$trio_log"
            trio_refuse "$trio_log: No space left on device"
        fi
        trio_create
    fi
}

# The words of a line of ls(1), up to the size.
trio_take_size() {
    trio_size=${5:-0}
}

trio_is_log() {
    [ -f "$1" ] && [ ! -h "$1" ] && [ -O "$1" ]
}

# The last five are kept: NAME.log becomes NAME.log.1, that becomes NAME.log.2, and so on.
trio_rotate() {
    trio_is_log "$trio_log" && [ -s "$trio_log" ] || return 0
    trio_free=1
    while [ "$trio_free" -lt 4 ] && { [ -e "$trio_log.$trio_free" ] || [ -h "$trio_log.$trio_free" ]; }; do
        trio_free=$((trio_free + 1))
    done
    while [ "$trio_free" -gt 0 ]; do
        trio_from=$trio_log.$((trio_free - 1))
        [ "$trio_free" -gt 1 ] || trio_from=$trio_log
        trio_to=$trio_log.$trio_free
        if [ -h "$trio_to" ] || [ -e "$trio_to" ] && ! trio_is_log "$trio_to"; then
            trio_refuse "$trio_to is no log file of this user"
        fi
        trio_words=$(mv -f "$trio_from" "$trio_to" 2>&1) || trio_refuse "$trio_words"
        trio_free=$((trio_free - 1))
    done
}

# A directory that only this user can use, for the log of an owned daemon.
trio_make_directory() {
    [ -z "$trio_state" ] || mkdir -p "$trio_state" 2>/dev/null
    for trio_base in "$trio_state" "${TMPDIR-}" /tmp; do
        trio_dir=$trio_base/$trio_token
        [ -n "$trio_base" ] && trio_words=$(mkdir "$trio_dir" 2>&1) && return
    done
    trio_refuse "no private directory could be made: $trio_words"
}

# Four pipes that nothing on a disk has to be made for. Linux opens a pipe to read and write without
# waiting for the other end, and then to do only one.
trio_open_pipes() {
    trio_make_pipes || trio_hold_pipes
    exec 9<>"$trio_held/7" 8<"$trio_held/7" 9>&-
    exec 4<>"$trio_held/4" 5<>"$trio_held/5" 7<>"$trio_held/6" 6<"$trio_held/6"
    [ -z "$trio_holder" ] || kill -s KILL "$trio_holder"
}

# Most shells make a pipe for a short here-document, with all of it inside. Some make a file.
trio_make_pipes() {
    trio_held=/proc/$$/fd trio_holder=
    { [ -p "$trio_held/4" ]; } 2>/dev/null 4<<. || return
pipe
.
    exec 4<<. 5<<. 6<<. 7<<.
4
.
5
.
6
.
7
.
    read -r trio_word <&4 && read -r trio_word <&5 && read -r trio_word <&6 && read -r trio_word <&7
}

# Those of pipelines. Somebody holds them until they are opened here: for a second, lest he outlive a
# shell that is killed meanwhile.
trio_hold_pipes() {
    for trio_try in 1 2 3 last; do
        trio_holder=$(trio_start_holder)
        trio_held=/proc/$trio_holder/fd
        { { :; } 4<>"$trio_held/4"; } 2>/dev/null && return
    done
    trio_refuse 'pipes can not be opened by /proc there'
}

trio_start_holder() {
    : | {
        exec 4<&0
        : | {
            exec 5<&0
            : | {
                exec 6<&0
                : | {
                    exec 7<&0
                    sleep 1 >/dev/null 2>&1 3>&- &
                    echo $!
                }
            }
        }
    }
}

# The process-to-be. Its number, and what opens the gate, are its own: it dies with the other end.
# The redirections are those of a group, so that the shell keeps copies to undo them, close-on-exec:
# `exec` is said by the kernel. bash goes on after an exec that was refused, others run the trap;
# why it was stands in the log, and what the gate itself complains of, nowhere.
trio_gate='
exec 4>"/proc/$1/fd/8" || exit 75
trio_launcher=$1
read -r trio_stat <"/proc/$$/stat"
trio_line=$2 trio_pwd=$3 trio_given=$4 trio_variable=$5
shift 5
trio_numbers() { shift 19; trio_start=$1; }
trio_numbers ${trio_stat##*) }
echo "pid $$ $trio_start" >"/proc/$trio_launcher/fd/5" || exit 75
printf "%s\n" "${trio_line%%%*}pid $$ $trio_start ${trio_line#*%}" >&3
IFS= read -r trio_go && [ "$trio_go" = go ] || exit 75
echo open >&4
case $trio_pwd in
    set) PWD=$trio_given; export PWD ;;
    unset) unset PWD ;;
esac
[ -z "$trio_variable" ] || export "$trio_variable=$$"
trap "echo refused >&4" EXIT
[ -z "${BASH_VERSION-}" ] || shopt -s execfail
{ exec "$@"; } </dev/null 2>&1 3>&- 4>&-
echo refused >&4
trap - EXIT
exit 126
'

trio_become() {
    exec 4>&- 5>&- 7>&- 8<&-
    if [ -n "$trio_cwd" ]; then
        CDPATH= cd -- "$trio_cwd" >/dev/null 2>&1 ||
            trio_refuse "its working directory $trio_cwd: $(trio_complaint cd -- "$trio_cwd")"
        unset OLDPWD
    fi
    trio_limits 2>/dev/null ||
        trio_refuse "its limits can't be set: $(trio_complaint trio_limits)"
    umask "${trio_umask:-$trio_mask}"
    trio_set="$trio_setsid" trio_sh="$trio_shell"
    if [ -n "$trio_spoken" ]; then LC_ALL=$trio_language; else unset LC_ALL; fi
    if [ -n "$plain_had_path" ]; then PATH=$plain_path; else unset PATH; fi
    trio_env
    exec "$trio_set" "$trio_sh" -c "$trio_gate" 'trio_lifecycle gate' "$$" \
        "$trio_token %$trio_boot $trio_space $trio_size $trio_log" "$trio_pwd" "$trio_given" \
        "$trio_variable" "$@"
}

# The daemon's parent. A shell says in words, before it goes on, that a signal has ended what it
# waited for; only by that is 137 of `exit 137` told from that of SIGKILL. None says so of SIGINT and
# SIGPIPE. bash says nothing here, but lists its jobs, and only bash can undo what & does to signals.
trio_wait() {
    read -r trio_me trio_rest </proc/self/stat
    printf '%s\n' "$trio_me"
    exec >&3 2>&4 5>&- 7>&- 8<&-
    if [ -n "${BASH_VERSION-}" ]; then
        trap 'jobs >&4' CHLD
        (trap - INT QUIT CHLD && trio_become "$@") <&6 >&9 2>/dev/null 6<&- 9>&- &
        # The trap interrupts it, and all that it has to say then is that.
        while wait $!; [ -e "/proc/$!" ]; do :; done
        wait $!
    else
        (trio_become "$@") <&6 >&9 2>/dev/null 6<&- 9>&-
    fi
    trio_status=$?
    echo end >&4
    read -r trio_words <&4
    case $trio_status:$trio_words in
        130:end | 141:end) trio_status=$((128 - trio_status)) ;;
        *:end | *Done* | *Exit*) ;;
        *) [ "$trio_status" -le 128 ] || trio_status=$((128 - trio_status)) ;;
    esac
    trio_say exit "$trio_status"
}

# What a shell starts with & ignores SIGINT and SIGQUIT, and so would the daemon. So the waiter is
# part of a pipeline, and whoever would wait for that is killed by its other part.
trio_start_waiter() {
    {
        trio_waiter=$(
            (
                trio_wait "$@" | {
                    read -r trio_me
                    printf '%s\n' "$trio_me"
                    read -r trio_a trio_b trio_c trio_parent trio_rest </proc/self/stat
                    kill -s KILL "$trio_parent"
                }
            )
        )
    } 2>/dev/null
}

# Its end of the pipe is opened before it is started: this shell may end at any moment.
trio_start_watchdog() {
    exec 4<"/proc/$$/fd/5"
    "$trio_setsid" "$trio_shell" -c "$trio_watchdog" 'trio_lifecycle watchdog' "$trio_token" \
        "$$" "$trio_waiter" "$trio_dir" "$trio_limit" "$trio_mark" $trio_ladder \
        <&4 >/dev/null 2>&1 4<&- 5>&- 7>&- 8<&- &
    trio_watchdog_pid=$!
    exec 4<&-
}

trio_open_gate() {
    echo go >&7
    if ! read -r trio_word <&8; then
        trio_say refused its process has ended at its gate
    elif read -r trio_word <&8; then
        trio_say refused "$(tail -n 1 "$trio_log" 2>/dev/null)"
    else
        trio_say exec
    fi
}

trio_launch() {
    trio_begin
    trio_check_program "$1"
    shift
    if [ "$trio_limit" -gt 0 ] && [ -z "$trio_log" ]; then
        trio_make_directory
        trio_log=$trio_dir/$trio_name.log
    fi
    trio_open_log
    trio_start_waiter "$@"
    exec 4>&- 6<&- 9>&-
    trio_start_watchdog
    while read -r trio_word trio_facts; do
        case $trio_word in
            go) trio_open_gate ;;
            .)
                # What somebody has killed by mistake must not leave the daemon without it.
                [ -e "/proc/$trio_watchdog_pid/fd/0" ] || trio_start_watchdog
                echo ". $trio_facts" >&5
                ;;
            leave)
                trio_say left
                break
                ;;
        esac
    done
    exit 0
}
