# Undoes what a login may have handed on to its shells, before anything else is said to one: options
# (SHELLOPTS), and functions (bash exports them). A shell that is called sh finds its special
# built-ins, `set` and `unset` among them, before any function.
set +abCefuvx
unset -f alias awk cat cd command compgen cut dd echo env false getconf grep head id jobs kill ls \
    mkdir mv od printf pwd read readlink rm rmdir sh shopt sleep stat tail test tr true type \
    ulimit umask unalias uname wait 2>/dev/null
if [ -n "${BASH_VERSION-}" ]; then
    unset -f $(compgen -A function)
    shopt -u dotglob failglob lastpipe nocasematch nullglob xpg_echo
fi
unalias -a 2>/dev/null
# Where the login's own PATH lacks what every machine has.
plain_path=${PATH-} plain_had_path=${PATH+set}
PATH="${PATH:-/bin}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
