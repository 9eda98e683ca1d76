#!/bin/sh
# The hook for machines with many attacks at a time. It stores notifications like
# fnm_bus/hook/python_hook.py, which defines the spool. Instead of a Python it starts
# three small programs: tee, link, sync.
#
# Status 0: stored and synced. Status 75: not in the spool; one line on stderr and in
# syslog names the path in the fallback spool, or reports the loss. Nothing is written
# to stdout.
#
# Differences from the Python hook:
# - It never drains: a relay has to run.
# - It keeps no reserve on the file system, since reading its free space needs another
#   program. A disk that becomes full during a document loses nothing: tee copies the
#   document to this shell, which writes it to the fallback spool, only without NULs and
#   without line breaks at its end.
# - The entry gets its name before it is synced, so that one program syncs the file and
#   the directory. An entry without its last byte was cut by a power loss.
# - The temporary file stays beside the entry, as a second link of the same file. The
#   relay removes both.
# - If /proc is not readable, names have the time at which the hook ran instead of the
#   time at which it was forked.
# - If no process can be started, it reads stdin and reports the loss.
# - It cannot read a stdin with O_NONBLOCK to the end, and reports the loss.

# -- settings, filled in by `fnm-bus hook install` --
SPOOL=/var/spool/fnm-bus
FALLBACK=/run/fnm-bus/spool
FALLBACK_FILES=2000
FALLBACK_BYTES=67108864
# -- end of the settings --

MAX_STDIN=67108864 # bytes of an entry with its arguments
PATH=/usr/bin:/bin:/usr/sbin:/sbin
LC_ALL=C
export PATH LC_ALL
unset IFS document  # a variable of the environment would be exported again
set -ufC          # -C: new files are opened with O_EXCL, so planted links are refused
umask 027         # entries are readable for the relay's group only
trap '' PIPE XFSZ # the writing program gets an error instead of a signal
name='' problem='' refused='' eot='\4'

# fail LINE: write it to stderr and syslog, and exit.
fail() {
    # shellcheck disable=SC2086 # split, to join all lines
    set -- fnm-bus hook: $1
    printf '%s\n' "$*" >&2
    trap 'exit 75' EXIT
    # logger waits without a limit if its reader hangs.
    timeout 2 logger -t fnm-bus -p daemon.err -- "$*" 2>/dev/null
    exit 75
}

# report_loss REASON: read the rest of stdin, remove temporary files, and exit.
report_loss() {
    cat 2>/dev/null
    remove_temporary
    fail "this notification is lost: $problem${problem:+; }$1"
}

# dash exits if it cannot fork; this function starts no process.
# shellcheck disable=SC2317 # a trap calls it
report_no_process() {
    while read -r _; do :; done
    echo 'fnm-bus hook: this notification is lost: no process can be started' >&2
    exit 75
}

remove_temporary() {
    rm -f -- "$SPOOL/incoming/tmp/$name" "$FALLBACK/incoming/tmp/$name" 2>/dev/null
}

# enter_dir ROOT PART: change to a directory of a spool, without links below its root:
# root may run this hook, and the spool's owner could plant a link to any directory.
enter_dir() {
    { cd -P "$1" && real=$PWD && cd -P "$1/$2"; } 2>/dev/null || {
        reason=$(ls -d "$1/$2/." 2>&1)
        reason="$1/$2: ${reason##*: }"
        return 1
    }
    reason="$1/$2: is or has a link on its way"
    [ "$PWD" = "${real%/}/$2" ]
}

# create_file ROOT: create the temporary file, open as 4.
create_file() {
    file=$1/incoming/tmp/$name
    enter_dir "$1" incoming/tmp || return
    if { command exec 4>"./$name"; } 2>/dev/null; then
        reason="$file: cannot be opened again, to append"
        [ -z "$fd_path" ] || { command exec 4>>"$fd_path"; } 2>/dev/null
        return
    fi
    reason=$({ : >"./$name"; } 2>&1) # again, for the error text
    reason="$file: ${reason##*: }"
    return 1
}

# find_write_error: set reason to the write error of the open file; this may append an
# empty line.
find_write_error() {
    reason=$(echo | tee -a "${fd_path:-/dev/null}" 4>&4 2>&1 >/dev/null)
    reason=${reason##*: }
    reason="$file: ${reason:-incomplete write}"
}

# write_head ARGUMENT...: write the bytes before the document.
write_head() {
    { print_head "$@" >&4; } 2>/dev/null && return
    find_write_error
    return 1
}

print_head() { printf '%s\0' "fnm-bus 1 $#" "$@"; } # ARGUMENT...

# commit_entry ROOT: make the open file an entry, by a link: mv, or rm of the temporary
# file, would take twice as long.
commit_entry() {
    bucket=$1/incoming/new/${name#"${name%?}"}
    reason="$file: cannot write the last byte"
    # shellcheck disable=SC2059 # a constant format
    { printf "$eot" >&4; } 2>/dev/null || return
    eot=''
    # By its name only before the link: the relay may remove the entry at once.
    [ "$fd_path" ] || sync "./$name" 2>/dev/null || return
    enter_dir "$1" "incoming/new/${name#"${name%?}"}" || return
    reason="$bucket/$name: cannot be linked"
    link "$file" "./$name" 2>/dev/null || return
    reason="$bucket/$name: cannot be synced"
    sync ${fd_path:+"$fd_path"} . 4>&4 2>/dev/null
}

set_ticks() { ticks=${20}; } # FIELD...: sets field 22; the first is field 3

has_room() {
    set +f
    set -- "$FALLBACK"/incoming/new/?/*
    set -f
    size=$(du -sk "$FALLBACK/incoming/new" 2>/dev/null) # unreadable files count 0
    size=${size%%[!0-9]*}
    [ $# -lt "$FALLBACK_FILES" ] && [ "${size:-0}" -lt $((FALLBACK_BYTES / 1024)) ]
}

exec >/dev/null
{ true 3>&2; } 2>/dev/null || exec 2>/dev/null
trap report_no_process EXIT
ulimit -f $((MAX_STDIN / 512)) 2>/dev/null
# shellcheck disable=SC3045 # not every shell has this limit
ulimit -v 524288 2>/dev/null # KiB: bounds the memory for an endless document
# In the text mode FastNetMon Community leaves its own stdin connected.
[ $# = 4 ] && [ "$4" = unban ] && exec </dev/null
{ true 3<&0; } 2>/dev/null || { exec </dev/null; report_loss 'stdin is closed'; }

# The entry's name. $$ is the process that FastNetMon forked.
if { IFS=- read -r a b c d e </proc/sys/kernel/random/boot_id &&
    IFS=- read -r random _ </proc/sys/kernel/random/uuid &&
    read -r stat </proc/self/stat; } 2>/dev/null; then
    boot=$a$b$c$d$e
    # shellcheck disable=SC2086 # the fields behind the program's name
    set_ticks ${stat##*)}
else # a boot at Unix time 0; fnm_bus/spool/sequence.py expects it
    boot=00000000000000000000000000000000
    ticks=$(date +%s%2N)
    case $ticks in *%*) ticks=$(date +%s)00 ;; esac # this date has no nanoseconds
    random=$(od -An -N4 -tx4 /dev/urandom)
fi
ticks=000000000000$ticks pid=000000$$
name=$boot-${ticks#"${ticks%????????????}"}-${pid#"${pid%???????}"}-${random# }

# The open file by its descriptor, since another user could replace a named file.
# Without /proc, NULs and the line breaks at the end of a document are lost.
fd_path=/dev/fd/4
[ -e /dev/fd/0 ] || fd_path=''

if [ -h "$SPOOL/full" ]; then
    problem="$SPOOL/full: is a link"
elif [ -f "$SPOOL/full" ]; then
    # The length distinguishes `all` from `status`: opening or reading the file could
    # block, because of a lease (fcntl(2)), a pipe, or a terabyte.
    refused=status
    case $(stat -c %s "$SPOOL/full" 2>/dev/null) in
    3 | 4) refused=all problem="$SPOOL: at its limit: all" ;;
    esac
fi

# Source of the document after a problem: stdin, the file, or a variable.
source=stdin
if [ -z "$problem" ] && create_file "$SPOOL" && write_head "$@"; then
    source='file'
    if [ "$fd_path" ]; then
        { document=$(tee -a "$fd_path" 4>&4); } 2>/dev/null
    else
        { document=$(cat) && printf %s "$document" >&4; } 2>/dev/null
    fi
    case $? in
    0) ;;
    1) # A read error; or a write error, after which stdin is at its end.
        [ "$(cat 2>&1)" ] && report_loss 'stdin: cannot be read'
        source=document
        find_write_error
        problem=$reason
        ;;
    *) report_loss 'tee: was killed, or is missing' ;;
    esac
    [ "$refused" ] && case $document in *attack_status*)
        problem=${problem:-"$SPOOL: at its limit: $refused"}
        ;;
    esac
    if [ -z "$problem" ] && commit_entry "$SPOOL"; then
        trap 'exit 0' EXIT
        exit 0
    fi
fi
problem=${problem:-$reason}

[ "$source" != file ] || [ -r "$fd_path" ] || source=document
[ "$source" = file ] || eot='\4'
has_room || report_loss "fallback: $FALLBACK: full"
{ command exec 5>&4; } 2>/dev/null
create_file "$FALLBACK" || report_loss "fallback: $reason"
reason=$({
    case $source in
    stdin) print_head "$@" && cat ;;
    document) print_head "$@" && printf %s "$document" ;;
    file) cat /dev/fd/5 5>&5 ;;
    esac >&4
} 2>&1) || report_loss "fallback: $file: ${reason##*: }"
commit_entry "$FALLBACK" || report_loss "fallback: $reason"
remove_temporary
fail "$problem; kept in the fallback spool: $bucket/$name"
