# Looks at sockets: proc_pid_net(5), and who holds them.

# The TCP sockets whose own port is $1 (four hexadecimal digits), in the state $2, and connected to
# port $3; the two may be left out. A row each, as the kernel writes it.
tl_tcp() {
	cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v port="$1" -v state="$2" -v other="$3" '
	{ split($2, own, ":"); split($3, far, ":") }
	own[2] == port && (state == "" || $4 == state) && (other == "" || far[2] == other)'
}

# Who listens at port $3, after a line that says whether $1 is an address of this machine, "here" or
# "elsewhere".
tl_listeners() {
	case $1 in
	127.* | ::1) printf 'here\n' ;;
	*) tl_has_address "$1" && printf 'here\n' || printf 'elsewhere\n' ;;
	esac
	tl_tcp "$3" 0A
}

# $1 is an address in its shortest digits, $2 the same in 32 hexadecimal digits, for IPv6.
tl_has_address() {
	case $1 in
	*:*) awk -v wanted="$2" '$1 == wanted { found = 1 } END { exit !found }' /proc/net/if_inet6 ;;
	*)
		awk -v wanted="$1" '
		$1 == "|--" { address = $2 }
		/\/32 host LOCAL/ && address == wanted { found = 1 }
		END { exit !found }' /proc/net/fib_trie
		;;
	esac 2>/dev/null
}

# The inodes of the sockets that listen at the path $1 of a UNIX socket, as it was bound. A path may
# hold a newline, so all is one text to awk, cut where a row begins.
tl_unix() {
	tl_wanted=$1 awk '
	BEGIN {
		digit = "[0-9A-F]"
		four = digit digit digit digit
		eight = " " four four
		start = "^[0-9a-f]+:" eight eight eight " " four " " digit digit " +[0-9]+"
	}
	function judge(    path, i, field) {
		split(row, field, " ")
		path = row
		for (i = 1; i <= 7; i++) sub(/^ *[^ ]+ ?/, "", path)
		if (path == ENVIRON["tl_wanted"] && substr(field[4], 4, 1) == "1") print field[7]
	}
	$0 ~ start { judge(); row = $0; next }
	{ row = row "\n" $0 }
	END { judge() }' /proc/net/unix 2>/dev/null
}

# Why a connection to the UNIX socket at path $1 may fail: "unknown" and a reason, where this user may
# not connect to it; "absent"; or "is", and the sockets that listen there.
tl_unix_state() {
	if [ ! -e "$1" ]; then
		tl_say_why_not "$1"
	elif [ ! -S "$1" ]; then
		tl_say absent
	elif [ ! -w "$1" ]; then
		tl_say unknown 'Permission denied'
	else
		tl_say is $(tl_unix "$1")
	fi
}

# The processes that hold one of the sockets with these inodes: inode, number, start time, parent.
# What a link says may be a file of any name; so what looks like one of the sockets is looked at
# again by itself.
tl_holders() {
	[ $# -gt 0 ] || return 0
	ls -l /proc/[0-9]*/fd 2>/dev/null | awk -v inodes="$*" '
	BEGIN { for (i = split(inodes, list, " "); i; i--) wanted["socket:[" list[i] "]"] = 1 }
	/^\/proc\/[0-9]+\/fd:$/ { pid = $0; gsub(/[^0-9]/, "", pid); next }
	$NF in wanted && $(NF - 1) == "->" && !((pid, $NF) in seen) {
		seen[pid, $NF] = 1
		print pid, $(NF - 2), $NF
	}' | while read -r tl_pid tl_fd tl_link; do
		case $tl_fd in '' | *[!0-9]*) continue ;; esac
		tl_tell_line readlink "/proc/$tl_pid/fd/$tl_fd"
		[ "$tl_told" = "$tl_link" ] || continue
		tl_inode=${tl_link#"socket:["}
		tl_read_stat "$tl_pid" && tl_say_holder "${tl_inode%"]"}" "$tl_pid" $tl_text
	done
}

tl_say_holder() {
	printf '%s %s %s %s\n' "$1" "$2" "${22}" "$4"
}

# Who listens at address $1 ($2: in 32 hexadecimal digits) and port $3: the rows, an empty line, and
# their holders.
tl_listening() {
	tl_rows=$(tl_listeners "$1" "$2" "$3" 2>/dev/null)
	printf '%s\n\n' "$tl_rows"
	tl_holders $(printf '%s\n' "$tl_rows" | awk 'NF > 9 && $10 { print $10 }')
}

# The same of a UNIX socket: inodes, an empty line, holders.
tl_listening_unix() {
	tl_rows=$(tl_unix "$1")
	printf '%s\n\n' "$tl_rows"
	tl_holders $tl_rows
}

# --- ports ----------------------------------------------------------------------------------------

# Finds a free TCP port and marks it, so that nobody who asks in this way gets it, too: $1 is any
# number to begin with. Says the port and its mark. The mark is a directory that is named after the
# port and this shell; it counts as long as this shell lives. Who makes one looks for others only
# then: so of two at once at most one keeps the port, and nobody removes what another has just made.
tl_reserve_port() {
	# Anybody may have taken the name in a directory for all.
	tl_have_marks "${TMPDIR:-/tmp}" || tl_have_marks "$HOME/.local/state/trio-lifecycle" || return 2
	tl_read /proc/sys/kernel/random/boot_id
	tl_boot=$tl_text
	tl_sweep_marks
	tl_read_stat "$$"
	tl_own="$tl_boot.$$.$(tl_start $tl_text)"
	for tl_port in $(tl_free_ports "$1"); do
		tl_mark_port && return
	done
	return 1
}

# Makes the place for marks in directory $1, unless it is there; false where it is not ours.
tl_have_marks() {
	tl_marks="$1/trio_lifecycle-ports-$(id -u)"
	mkdir -p "$tl_marks" 2>/dev/null
	[ ! -L "$tl_marks" ] && [ -O "$tl_marks" ] && [ -w "$tl_marks" ]
}

# Removes the marks of shells that have ended, also with an older boot.
tl_sweep_marks() {
	for tl_mark in "$tl_marks"/*.*.*.*; do
		tl_holds "${tl_mark##*/}" || rmdir "$tl_mark" 2>/dev/null
	done
}

# Whether who made the mark named $1 lives: PORT.BOOT.PID.START.
tl_holds() {
	tl_rest=${1#*.}
	[ "${tl_rest%%.*}" = "$tl_boot" ] || return
	tl_rest=${tl_rest#*.}
	tl_is_living "${tl_rest%%.*}" "${tl_rest#*.}"
}

tl_mark_port() {
	mkdir "$tl_marks/$tl_port.$tl_own" 2>/dev/null || return
	for tl_mark in "$tl_marks/$tl_port".*; do
		[ "$tl_mark" = "$tl_marks/$tl_port.$tl_own" ] && continue
		rmdir "$tl_marks/$tl_port.$tl_own"
		return 1
	done
	tl_say "$tl_port" "$tl_marks/$tl_port.$tl_own"
}

# Ports that no socket has, outside the range that the kernel serves itself from, some of them from
# a place on that depends on $1. What other programs with this package have marked on this machine
# is left out.
tl_free_ports() {
	cat /proc/sys/net/ipv4/ip_local_port_range /proc/net/tcp /proc/net/tcp6 /proc/net/unix 2>/dev/null |
		awk -v seed="$1" '
	function value(digits,    i, sum) {
		for (i = 1; i <= 4; i++) sum = sum * 16 + index("0123456789ABCDEF", substr(digits, i, 1)) - 1
		return sum
	}
	NR == 1 { low = $1; high = $2; next }
	$NF ~ /^@trio-lifecycle\/port\// { mark = $NF; sub(/.*\//, "", mark); taken[mark + 0] = 1 }
	$2 ~ /^[0-9A-F]+:[0-9A-F][0-9A-F][0-9A-F][0-9A-F]$/ { split($2, end, ":"); taken[value(end[2])] = 1 }
	END {
		first = 10000; last = low - 1
		if (last - first < 1000) { first = high + 1; if (first < 10000) first = 10000; last = 65535 }
		if (last - first < 1000) { first = low < 1024 ? 1024 : low; last = high }
		count = last - first + 1
		for (i = 0; i < count && found < 50; i++) {
			port = first + (seed + i) % count
			if (!(port in taken)) { print port; found++ }
		}
	}'
}

# Lets others have the port with mark $1.
tl_release_port() {
	case $1 in */trio_lifecycle-ports-*/[1-9]*.*.*.*) rmdir "$1" 2>/dev/null ;; esac
}
