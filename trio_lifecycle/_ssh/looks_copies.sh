# Looks at copies of files of another machine, and what is done for them.

# What stands at $1, where a file of $2 bytes shall stand: "alike", its mode, and, where it has $3
# bytes at most, its digest; "other" is a file of another size. "directory", "special"; else as
# tl_file_mark.
tl_compare() {
	if [ -d "$1" ]; then
		tl_say directory
	elif [ -f "$1" ]; then
		tl_mark=$(stat -L -c '%s %a' -- "$1" 2>/dev/null)
		case $tl_mark in
		"$2 "*)
			tl_say alike "${tl_mark#* }"
			[ "$2" -gt "$3" ] || tl_digest "$1"
			;;
		*) tl_say other ;;
		esac
	elif [ -e "$1" ]; then
		tl_say special
	else
		tl_say_why_not "$1"
	fi
}

# The SHA-256 of file $1, with whatever a program adds to it; nothing where there is no such program.
tl_digest() {
	tl_say "$(tl_exec_digest <"$1" 2>/dev/null)"
}

tl_exec_digest() {
	if command -v sha256sum >/dev/null; then
		exec sha256sum
	elif command -v shasum >/dev/null; then
		exec shasum -a 256
	elif command -v openssl >/dev/null; then
		exec openssl dgst -sha256 -r
	fi
}

# As tl_digest, in a shell of its own: the work ends when the input does, for nobody waits then. No
# more must be sent to this shell.
tl_digest_until_closed() {
	exec 3<&0
	tl_exec_digest <"$1" 2>/dev/null &
	tl_job=$!
	(
		read -r tl_word <&3
		kill "$tl_job"
	) >/dev/null 2>&1 &
	tl_watch=$!
	wait "$tl_job"
	kill "$tl_watch" 2>/dev/null
}

# Begins a copy in directory $1 of what shall be file $2 there: makes the directory, and removes what
# is left of copies that nobody completes any more. Says "is" and the file to write to meanwhile; or
# "unknown" and why not. $3 is a word that nobody else has.
#
# The file is named after this shell, which ends with the connection, and removes it then. So it is
# known to be left behind where this shell lives no more, as after a SIGKILL or a power failure.
tl_begin_copy() {
	tl_make_directory "$1"
	if [ -n "$tl_problem" ]; then
		tl_say unknown "$tl_problem"
		return
	fi
	tl_own=$(tl_shell_name)
	for tl_left in "$1/.$2".*.*.*.*.tmp; do
		tl_is_left_behind "$tl_left" "${tl_left#"$1/.$2."}" && rm -f -- "$tl_left"
	done
	tl_copy="$1/.$2.$3.$tl_own.tmp"
	trap 'rm -f -- "$tl_copy"' EXIT
	tl_say is "$tl_copy"
}

# Makes directory $1 and those above it, and sees whether it may be written to. Sets tl_problem.
tl_make_directory() {
	# Who runs the daemon may be another one than who brings its files.
	tl_problem=$( (umask 022 && mkdir -p -- "$1") 2>&1)
	tl_problem=${tl_problem##*: }
	if [ -d "$1" ]; then
		tl_problem=
		[ -w "$1" ] || tl_problem="its directory may not be written to by this user, or is read-only"
	fi
}

# What no other shell is called: boot and namespace of its machine, its number and start time. Empty
# fields where that can't be told.
tl_shell_name() {
	tl_read /proc/sys/kernel/random/boot_id
	tl_boot=$tl_text
	tl_tell_line readlink "/proc/$$/ns/pid"
	tl_told=${tl_told#"pid:["}
	tl_read_stat "$$" || tl_boot=
	printf '%s' "$tl_boot${tl_boot:+-${tl_told%"]"}}.$$.$(tl_start $tl_text)"
}

# Whether file $1, a copy that was not completed, is one that nobody completes any more. $2 is the
# end of its name: a word, the shell's name, "tmp".
tl_is_left_behind() {
	tl_rest=${2#*.}
	tl_rest=${tl_rest%.tmp}
	if [ -n "${tl_own%%.*}" ] && [ "${tl_rest%%.*}" = "${tl_own%%.*}" ]; then
		tl_rest=${tl_rest#*.}
		! tl_is_living "${tl_rest%%.*}" "${tl_rest#*.}"
	else
		# Of another machine that shares the directory, or of an earlier boot of this one. A copy
		# that is under way changes all the time.
		[ -n "$(find "$1" -prune -type f -mtime +0 2>/dev/null)" ]
	fi
}

# Changes the mode of file $1 by $2. Says "is", or "unknown" and why not.
tl_change_mode() {
	if tl_problem=$(chmod -- "$2" "$1" 2>&1); then
		tl_say is
	else
		tl_say unknown "${tl_problem##*: }"
	fi
}

# How many blocks the file system of directory $1 has free for this user, and how long one is.
tl_room() {
	tl_say "$(stat -f -c '%a %S' -- "$1" 2>/dev/null)"
}
