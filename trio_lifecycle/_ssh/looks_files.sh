# Looks at files.

# The mark of file $1: device, number, size, time of its last change in seconds, and the same as
# text with its fraction; before it "is". Else "absent", or "unknown" and the reason.
tl_file_mark() {
	tl_mark=$(stat -L -c '%d %i %s %Y %y' -- "$1" 2>/dev/null)
	if [ -n "$tl_mark" ]; then
		tl_say is "$tl_mark"
	else
		tl_say_why_not "$1"
	fi
}

tl_say_why_not() {
	tl_reason_of "$1"
	if [ -n "$tl_problem" ]; then tl_say unknown "$tl_problem"; else tl_say absent; fi
}

# Of regular file $1 the size, and $3 blocks of 4096 bytes from block $2 on; before them "is". Else as
# tl_file_mark.
tl_read_log() {
	if [ -e "$1" ] && [ ! -f "$1" ]; then
		tl_say unknown 'it is no regular file'
		return
	fi
	tl_size=$(stat -L -c %s -- "$1" 2>/dev/null)
	if [ -z "$tl_size" ]; then
		tl_say_why_not "$1"
	elif [ ! -r "$1" ]; then
		tl_say unknown 'Permission denied'
	else
		tl_say is "$tl_size"
		[ "$3" = 0 ] || dd if="$1" bs=4096 skip="$2" count="$3" 2>/dev/null
	fi
}

# Removes directory $1 with what is in it, if it is one that was made for us alone: no link, ours,
# mode 0700, and not the home directory. Says "absent" when it is gone, also before; else "unknown" and why it is not.
tl_remove_private() {
	tl_problem=
	if [ -e "$1" ] || [ -L "$1" ]; then tl_remove_it "$1"; fi
	if [ -n "$tl_problem" ]; then tl_say unknown "$tl_problem"; else tl_say_why_not "$1"; fi
}

tl_remove_it() {
	if [ -L "$1" ] || [ ! -d "$1" ] || [ ! -O "$1" ] || [ "$1" -ef "${HOME:-/}" ]; then
		tl_problem='it is no directory of ours'
		return
	fi
	case $(ls -ld -- "$1") in
	drwx------*)
		tl_problem=$(rm -rf -- "$1" 2>&1)
		tl_problem=${tl_problem##*: }
		;;
	*) tl_problem='others may use it' ;;
	esac
}
