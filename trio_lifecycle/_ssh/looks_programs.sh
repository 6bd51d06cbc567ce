# Looks at files that shall be started.

# Looks at places for a program, each as "asked" or "path" (only PATH names its directory) and the
# file, until one can be started. Says of each what it found: "none", "found" and where it is behind
# all links, or "miss" and why not.
tl_find_binary() {
	while [ $# -gt 1 ]; do
		tl_look_at "$1" "$2" && return
		shift 2
	done
}

tl_look_at() {
	if [ ! -e "$2" ]; then
		tl_say_absent "$1" "$2"
		return 1
	fi
	if [ "$1" = path ] && tl_is_open_to_all "${2%/*}/"; then
		tl_say miss 'is in a directory that anyone can write in'
		return 1
	fi
	if tl_has_problem "$2" 5; then
		tl_say miss "$tl_problem"
		return 1
	fi
	tl_tell_line readlink -f -- "$2"
	tl_say found "${tl_told:-$2}"
}

# Why a file that test -e does not find is not there. Of most directories of PATH nobody asks.
tl_say_absent() {
	if [ "$1" = path ] && [ ! -L "$2" ]; then
		tl_say none ''
		return
	fi
	tl_reason_of "$2"
	if [ -n "$tl_problem" ]; then
		if [ "$1" = asked ]; then tl_say miss "can't be looked at: $tl_problem"; else tl_say none ''; fi
	elif [ -L "$2" ]; then
		tl_say miss 'is a symbolic link to what is not there'
	else
		tl_say none ''
	fi
}

# Sets tl_problem to the kernel's reason why file $1 can't be looked at; empty when it is not there.
tl_reason_of() {
	tl_problem=$(ls -dL -- "$1" 2>&1 >/dev/null)
	tl_problem=${tl_problem##*: }
	case $tl_problem in 'No such file or directory' | 'Not a directory') tl_problem= ;; esac
}

tl_is_open_to_all() {
	case $(ls -ldL -- "$1" 2>/dev/null) in ????????w*) return ;; esac
	return 1
}

# Sets tl_problem to why file $1 can't be started, and answers 0 if there is such a reason. Follows
# $2 interpreters of interpreters.
tl_has_problem() {
	tl_problem=
	if [ -d "$1" ]; then
		tl_problem='is a directory'
	elif [ ! -f "$1" ]; then
		tl_problem='is no regular file'
	elif [ ! -x "$1" ]; then
		tl_problem="is not executable: chmod +x $1"
		case $(ls -ldL -- "$1") in ???[xs]* | ??????[xs]* | ?????????[xt]*)
			tl_problem='may not be executed by this user, or its file system is mounted noexec'
			;;
		esac
	elif [ ! -s "$1" ]; then
		tl_problem='is empty'
	elif [ -r "$1" ]; then
		tl_look_inside "$1" "$2"
	fi
	[ -n "$tl_problem" ]
}

tl_look_inside() {
	tl_kind=$(tl_read_elf "$1")
	if [ -n "$tl_kind" ]; then
		tl_look_at_elf
		return
	fi
	# What execve(2) reads of it: 256 bytes, of which the shell loses the NULs.
	{ tl_head=$(head -c 256 <"$1"); } 2>/dev/null
	case $tl_head in
	'#!'*) tl_look_at_script "${tl_head%%"$tl_newline"*}" "$2" ;;
	# Whatever would have read it is not here, or not any more.
	"$tl_elf"*) ;;
	*) tl_problem='is neither an ELF program nor a script that begins with #!' ;;
	esac
}

tl_elf=$(printf '\177ELF')
tl_blanks=$(printf ' \t')
tl_return=$(printf '\r')
tl_own_kind=

# The first line of a script is $1.
tl_look_at_script() {
	set -- "${1#??}" "$2"
	# Blanks before the interpreter's path are skipped, and one after it ends it.
	set -- "${1#"${1%%[!$tl_blanks]*}"}" "$2"
	set -- "${1%%[$tl_blanks]*}" "$2"
	if [ -z "$1" ]; then
		tl_problem='names no interpreter after #!'
	elif [ "$2" = 0 ]; then
		tl_problem='is a script for a script for a script, too many for the kernel'
	elif tl_has_problem_there "$1" "$(($2 - 1))"; then
		case $1 in
		*"$tl_return") tl_problem='has Windows line ends, so that its interpreter is not found: dos2unix mends that' ;;
		*) tl_problem="needs the interpreter $1, which $tl_problem" ;;
		esac
	fi
}

tl_has_problem_there() {
	if [ -e "$1" ]; then
		tl_has_problem "$1" "$2"
		return
	fi
	tl_reason_of "$1"
	tl_problem="can't be used: ${tl_problem:-$(ls -dL -- "$1" 2>&1 | sed 's/.*: //')}"
}

# Compares what a file is made for, tl_kind, with what this shell is made for.
tl_look_at_elf() {
	if [ -z "$tl_own_kind" ]; then
		tl_own_kind=$(tl_read_elf "/proc/$$/exe")
		tl_own_kind=${tl_own_kind%%"$tl_newline"*}
	fi
	tl_loader=${tl_kind#*"$tl_newline"}
	tl_kind=${tl_kind%%"$tl_newline"*}
	if [ "$tl_kind" = damaged ]; then
		tl_problem='is a damaged ELF file'
	elif [ -n "$tl_kind" ] && ! tl_runs_on "$tl_kind" "$tl_own_kind"; then
		tl_problem="is made for ${tl_kind#*/}; this machine is ${tl_own_kind#*/}"
	else
		tl_look_at_loader "$tl_loader"
	fi
}

# $1 is what tl_read_elf says on its second line.
tl_look_at_loader() {
	case $1 in
	damaged) tl_problem='is a damaged ELF file' ;;
	other) tl_problem='is an ELF file, but no program: an object or a core dump' ;;
	/*)
		[ -e "$1" ] ||
			tl_problem="needs the loader $1, which is not here: it was made for another C library"
		;;
	esac
}

# Whether a kernel that starts $2 may start $1, by the numbers before the slash: order of bytes,
# processor. The 32-bit elder is usually started by the same kernel; only exec can say. Without /proc
# nothing is known of $2.
tl_runs_on() {
	if [ "$1" = "$2" ] || [ -z "$2" ]; then return; fi
	case "${1%%/*} ${2%%/*}" in
	'1.3 1.62' | '1.62 1.3' | '1.40 1.183' | '1.183 1.40' | '1.62 1.62' | '1.183 1.183') ;;
	*) return 1 ;;
	esac
}

# Says what ELF file $1 is made for, as "order.processor/words", and on the next line the loader
# that it names (PT_INTERP of elf(5)), "other" for what is no program, or "damaged". Of a file that is
# damaged at its beginning that is all. What stands behind its first 4096 bytes is believed. Of other
# files it says nothing.
tl_read_elf() {
	od -An -v -tu1 -N 4096 "$1" 2>/dev/null | awk '
	{ for (i = 1; i <= NF; i++) byte[n++] = $i }
	function number(at, size,    i, value) {
		for (i = 0; i < size; i++)
			value = value * 256 + byte[order == 1 ? at + size - 1 - i : at + i]
		return value
	}
	function say_kind(    name, machine) {
		name[3] = "i386"
		name[40] = "ARM"
		name[62] = "x86-64"
		name[183] = "AArch64"
		name[243] = "RISC-V"
		machine = number(18, 2)
		printf "%d.%d/%s", order, machine, machine in name ? name[machine] : "processor " machine " of elf(5)"
		printf " (%d bits, %s-endian)\n", wide ? 64 : 32, order == 1 ? "little" : "big"
	}
	function is_damaged() {
		table = wide ? number(32, 8) : number(28, 4)
		size = number(wide ? 54 : 42, 2)
		count = number(wide ? 56 : 44, 2)
		if (size != (wide ? 56 : 32) || !count || size * count > 65536) return 1
		return n < 4096 && table + size * count > n
	}
	function say_loader(    i, at, place, length_) {
		for (i = 0; i < count; i++) {
			at = table + i * size
			if (at + size > n || number(at, 4) != 3) continue
			place = number(at + (wide ? 8 : 4), wide ? 8 : 4)
			length_ = number(at + (wide ? 32 : 16), wide ? 8 : 4)
			for (i = 0; i < length_ && place + i < n && byte[place + i]; i++) printf "%c", byte[place + i]
			return
		}
	}
	END {
		if (byte[0] != 127 || byte[1] != 69 || byte[2] != 76 || byte[3] != 70) exit
		wide = byte[4] == 2
		order = byte[5]
		if (n < 20 || (byte[4] != 1 && !wide) || (order != 1 && order != 2)) {
			print "damaged"
			exit
		}
		say_kind()
		if (number(16, 2) != 2 && number(16, 2) != 3) print "other"
		else if (is_damaged()) print "damaged"
		else say_loader()
	}'
}
