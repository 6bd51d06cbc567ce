# Looks at processes. One is told by its number and its start time together.

# Reads the state of process $1 into tl_text, from its third field on: proc_pid_stat(5). Its name
# stands in parentheses before that, and may itself hold ")", blanks and newlines.
tl_read_stat() {
	tl_read "/proc/$1/stat"
	tl_text=${tl_text##*) }
	[ -n "$tl_text" ]
}

# Whether process $1 that was started at $2 lives. A zombie does not, except where other threads
# than the main one work on.
tl_is_living() {
	tl_read_stat "$1" || return
	tl_is_living_by "$2" $tl_text
}

tl_is_living_by() {
	[ "$1" = "${21}" ] || return
	case $2 in [ZXx]) [ "${19}" -gt 1 ] ;; esac
}

# Says whether process $1 that was started at $2 is "living" or "dead". With no descriptor left,
# every process would seem dead: then this shell does, too, and nothing is said.
tl_lives() {
	if tl_is_living "$1" "$2"; then
		printf living
	elif tl_read_stat "$$"; then
		printf dead
	fi
}

# What the kernel says of process $1, or "absent".
tl_stat() {
	if tl_tell cat "/proc/$1/stat"; then
		printf %s "$tl_told"
	elif tl_tell cat "/proc/$$/stat"; then
		printf absent
	fi
}

# Time since the machine's boot, in seconds.
tl_uptime() {
	read -r tl_word tl_piece </proc/uptime
	printf '%s\n' "$tl_word"
}

# The living processes of a daemon, parents before their children, a line each: number, start time,
# parent, group, session, state, threads, name. They are the one with number $1 that was started at
# $2, who is in the session or group that it leads, those that are named after it as pairs of number
# and start time, and all descendants of these. Its number may be another's by now: then it leads
# nobody. This shell, its ancestors and process 1 are never among them, nor is what descends only
# through them. A line with a dot ends them; without it they are not all.
#
# All that the kernel says comes in one stream. A name of at most 15 bytes can hold a newline, but
# not the twenty numbers that end an entry.
tl_family() {
	cat /proc/[0-9]*/stat 2>/dev/null | awk -v shell="$$" -v wanted="$*" '
	{
		entry = begun ? entry "\n" $0 : $0
		rest = entry
		if (entry !~ /^[0-9]+ \(/) { begun = 0; next }
		begun = !sub(/^.*\) /, "", rest) || split(rest, field, " ") < 20 || field[20] !~ /^[0-9]+$/
		if (!begun) take()
	}
	function take(    pid, name) {
		pid = entry
		sub(/ .*/, "", pid)
		name = substr(entry, length(pid) + 3, length(entry) - length(pid) - length(rest) - 4)
		gsub(/\\/, "\\\\", name)
		gsub(/\n/, "\\n", name)
		start[pid] = field[20]
		parent[pid] = field[2]
		group[pid] = field[3]
		session[pid] = field[4]
		dead[pid] = field[1] ~ /[ZXx]/ && field[18] <= 1
		said[pid] = field[20] " " field[2] " " field[3] " " field[4] " " field[1] " " field[18] " " name
	}
	function add(pid) {
		if (pid in start && !(pid in spared) && !(pid in known)) {
			known[pid] = 1
			queue[++many] = pid
		}
	}
	END {
		spared[0] = spared[1] = 1
		for (pid = shell; !(pid in spared) && pid in parent; pid = parent[pid]) spared[pid] = 1
		count = split(wanted, word, " ")
		leader = word[1]
		if (leader + 0 > 1 && !(leader in spared) && (!(leader in start) || start[leader] == word[2])) {
			add(leader)
			for (pid in start) if (session[pid] == leader || group[pid] == leader) add(pid)
		}
		for (i = 3; i < count; i += 2) if (start[word[i]] == word[i + 1]) add(word[i])
		for (i = 1; i <= many; i++) for (pid in start) if (parent[pid] == queue[i]) add(pid)
		for (i = 1; i <= many; i++) if (!dead[queue[i]]) print queue[i], said[queue[i]]
		if (shell in start) print "."
	}'
}

# The family of $1, as tl_family gives it, each with the place in the kernel where it waits before
# it; and first the time since the machine's boot.
tl_tree() {
	tl_uptime
	tl_family "$@" | while IFS= read -r tl_line; do
		case $tl_line in .) printf '.\n'; continue ;; esac
		tl_read "/proc/${tl_line%% *}/wchan"
		printf '%s %s\n' "${tl_text:-0}" "$tl_line"
	done
}

# Sends signal $1 to process $2 if it is the one that was started at $3. Says whether it was "sent",
# also when it is gone, or "refused".
tl_signal() {
	tl_name=$1
	if ! tl_read_stat "$$"; then
		return
	elif tl_kill "$2" "$3"; then
		printf sent
	else
		printf refused
	fi
}

# Sends signal tl_name to process $1 if it is the one that was started at $2.
tl_kill() {
	case $1 in '' | *[!0-9]* | 0 | 1 | "$$") return 1 ;; esac
	tl_is_living "$1" "$2" || return 0
	# Gone since is fine; another user's is not.
	kill "-$tl_name" "$1" 2>/dev/null || ! tl_is_living "$1" "$2"
}

# Sends signal $1 to the family of the rest, and says what is left of it, after a line with those
# that could not be sent it.
tl_signal_tree() {
	tl_name=$1
	shift
	tl_refused=
	tl_members=$(tl_family "$@" | while read -r tl_word tl_piece; do
		[ "$tl_word" = . ] || printf '%s %s ' "$tl_word" "${tl_piece%% *}"
	done)
	tl_signal_all $tl_members
	printf '%s\n' "$tl_refused"
	tl_tree "$@" $tl_members
}

tl_signal_all() {
	while [ $# -gt 1 ]; do
		tl_kill "$1" "$2" || tl_refused="$tl_refused $1"
		shift 2
	done
}

# What process $1 that was started at $2 runs: its executable without links, then its arguments;
# and at last whether it is living or dead.
tl_program() {
	tl_tell_line readlink "/proc/$1/exe"
	tl_say "$tl_told"
	cat "/proc/$1/cmdline" 2>/dev/null
	printf '\0'
	tl_lives "$1" "$2"
}

# The living processes that bear the mark of instance $1, as number and start time. A line with a
# dot ends them.
tl_strays() {
	grep -lzxF -- "TRIO_LIFECYCLE_INSTANCE=$1" /proc/[0-9]*/environ 2>/dev/null |
		while IFS= read -r tl_line; do
			tl_word=${tl_line#/proc/}
			tl_word=${tl_word%/environ}
			tl_read_stat "$tl_word" || continue
			tl_say_start "$tl_word" $tl_text
		done
	tl_read_stat "$$" && printf '.\n'
}

# The number $1 and the start time, of what tl_read_stat has read after it.
tl_say_start() {
	case $2 in [ZXx]) return ;; esac
	printf '%s %s\n' "$1" "${21}"
}

# The start time, of what tl_read_stat has read.
tl_start() {
	printf '%s' "${20}"
}
