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

# Makes directory $1 and those above it, and sees whether it may be written to. Says "is", or
# "unknown" and why not.
tl_make_directory() {
	# Who runs the daemon may be another one than who brings its files.
	tl_problem=$( (umask 022 && mkdir -p -- "$1") 2>&1)
	if [ ! -d "$1" ]; then
		tl_say unknown "${tl_problem##*: }"
	elif [ ! -w "$1" ]; then
		tl_say unknown "its directory may not be written to by this user, or is read-only"
	else
		tl_say is
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
