# Looks at files.

# The mark of file $1: device, number, size, time of its last change in seconds, and the same as
# text with its fraction. Answers 1 when it is not there, and 2 with the reason when that can't be
# told.
tl_file_mark() {
	stat -L -c '%d %i %s %Y %y' -- "$1" 2>/dev/null && return
	tl_reason_of "$1"
	[ -n "$tl_problem" ] || return 1
	tl_say "$tl_problem"
	return 2
}

# The size of regular file $1 in a line, then $3 blocks of 4096 bytes of it from block $2 on. Answers
# as tl_file_mark does.
tl_read_log() {
	if [ -e "$1" ] && [ ! -f "$1" ]; then
		tl_say 'it is no regular file'
		return 2
	fi
	{ tl_told=$(stat -L -c %s -- "$1"); } 2>/dev/null
	if [ -z "$tl_told" ] || [ ! -r "$1" ]; then
		tl_say_why_unread "$1"
		return
	fi
	printf '%s\n' "$tl_told"
	[ "$3" = 0 ] || dd if="$1" bs=4096 skip="$2" count="$3" 2>/dev/null
}

tl_say_why_unread() {
	tl_problem='Permission denied'
	[ -e "$1" ] || tl_reason_of "$1"
	[ -n "$tl_problem" ] || return 1
	tl_say "$tl_problem"
	return 2
}

# Removes directory $1 with what is in it, if it is one that was made for us alone: no link, ours,
# mode 0700. Answers 0 when it is gone, also before; else says why not.
tl_remove_private() {
	if [ ! -e "$1" ] && [ ! -L "$1" ]; then return 0; fi
	case $1 in /*/?*) ;; *) tl_say 'it is no path of a private directory'; return 1 ;; esac
	if [ -L "$1" ] || [ ! -d "$1" ] || [ ! -O "$1" ]; then
		tl_say 'it is no directory of ours'
		return 1
	fi
	case $(ls -ld -- "$1") in
	drwx------*) ;;
	*)
		tl_say 'others may use it'
		return 1
		;;
	esac
	tl_problem=$(rm -rf -- "$1" 2>&1) || tl_say "${tl_problem##*: }"
	[ ! -d "$1" ]
}
