#!/bin/sh
# The hook for machines under heavy fire. It stores what FastNetMon says as
# fnm_bus/hook/python_hook.py does, which defines the spool, and costs three small programs instead
# of a Python: tee, link, sync.
#
# Status 0: on disk, durably. 75: not in the spool; one line on stderr and in syslog
# says whether the fallback spool has it. Nothing is ever on stdout.
#
# It differs from the Python hook in this:
# - It never drains: a relay has to run.
# - It keeps no space free; to ask how much there is would be one more process. A disk
#   that is full in the middle of a document loses nothing all the same: tee gives it to
#   this shell as well, which writes it to the fallback spool. Only then NULs and line
#   breaks at its end are gone, which a shell cannot hold.
# - Its entry has its name before it is durable, so that one program syncs the file and
#   the directory. One that a loss of power cuts there has no end, which the relay sees.
# - Its temporary file stays beside the entry, as a second link of the same file. The
#   relay removes both.
# - Where not all of /proc can be read, names tell when it ran, not when it was forked.
# - Where no further process can be started, it reads stdin and says so.
# - A stdin that does not block (O_NONBLOCK) cannot be read to its end; it says so.

# -- settings, filled in by `fnm-bus hook install` --
SPOOL=/var/spool/fnm-bus
FALLBACK=/run/fnm-bus/spool
FALLBACK_FILES=2000
FALLBACK_BYTES=67108864
# -- end of the settings --

MAX_STDIN=67108864 # bytes of an entry, what is before the document included
PATH=/usr/bin:/bin:/usr/sbin:/sbin
LC_ALL=C
export PATH LC_ALL
unset IFS document  # what came exported would be exported
set -ufC          # -C: new files are made with O_EXCL, so a planted link leads nowhere
umask 027         # others cannot read an entry, the relay's group can
trap '' PIPE XFSZ # errors of the program that writes, not its death
name='' trouble='' refused='' end='\4'

# end LINE: say it on stderr and in syslog, and end.
end() {
    # shellcheck disable=SC2086 # split, so that it is one line
    set -- fnm-bus hook: $1
    printf '%s\n' "$*" >&2
    trap 'exit 75' EXIT
    # Where nobody reads the log, logger would wait for ever.
    timeout 2 logger -t fnm-bus -p daemon.err -- "$*" 2>/dev/null
    exit 75
}

# lost WHY: read the rest of stdin, remove what is half, and end.
lost() {
    cat 2>/dev/null
    clean
    end "this notification is lost: $trouble${trouble:+; }$1"
}

# How dash ends when it cannot fork; this starts nothing.
# shellcheck disable=SC2317 # a trap calls it
last() {
    while read -r _; do :; done
    echo 'fnm-bus hook: this notification is lost: no process can be started' >&2
    exit 75
}

clean() {
    rm -f -- "$SPOOL/incoming/tmp/$name" "$FALLBACK/incoming/tmp/$name" 2>/dev/null
}

# enter ROOT PART: go to a directory of a spool, by no link below its root: its owner
# could have put one there, and root, who may write anywhere, may run this.
enter() {
    { cd -P "$1" && real=$PWD && cd -P "$1/$2"; } 2>/dev/null || {
        why=$(ls -d "$1/$2/." 2>&1)
        why="$1/$2: ${why##*: }"
        return 1
    }
    why="$1/$2: is or has a link on its way"
    [ "$PWD" = "${real%/}/$2" ]
}

# begin ROOT: make a new file, open as 4.
begin() {
    file=$1/incoming/tmp/$name
    enter "$1" incoming/tmp || return
    if { command exec 4>"./$name"; } 2>/dev/null; then
        why="$file: cannot be opened again, to append"
        [ -z "$itself" ] || { command exec 4>>"$itself"; } 2>/dev/null
        return
    fi
    why=$({ : >"./$name"; } 2>&1) # once more, for the reason
    why="$file: ${why##*: }"
    return 1
}

# reason: set why to the reason for which the open file takes nothing more; it may get
# an empty line by this.
reason() {
    why=$(echo | tee -a "${itself:-/dev/null}" 4>&4 2>&1 >/dev/null)
    why=${why##*: }
    why="$file: ${why:-it has not taken all}"
}

# head ARGUMENT...: write what is before the document.
head() {
    { before "$@" >&4; } 2>/dev/null && return
    reason
    return 1
}

before() { printf '%s\0' "fnm-bus 1 $#" "$@"; } # ARGUMENT...: of an entry's document

# commit ROOT: make an entry of the file that is open. By a link: mv takes twice as long,
# and so would a rm of what is behind it.
commit() {
    bucket=$1/incoming/new/${name#"${name%?}"}
    why="$file: cannot be ended"
    # shellcheck disable=SC2059 # the format is ours
    { printf "$end" >&4; } 2>/dev/null || return
    end=''
    # By its name only before there is an entry, which the relay may take at once.
    [ "$itself" ] || sync "./$name" 2>/dev/null || return
    enter "$1" "incoming/new/${name#"${name%?}"}" || return
    why="$bucket/$name: cannot be linked"
    link "$file" "./$name" 2>/dev/null || return
    why="$bucket/$name: cannot be synced"
    sync ${itself:+"$itself"} . 4>&4 2>/dev/null
}

started() { ticks=${20}; } # FIELD...: field 22, where the first is the third

room() {
    set +f
    set -- "$FALLBACK"/incoming/new/?/*
    set -f
    size=$(du -sk "$FALLBACK/incoming/new" 2>/dev/null) # what it could not see is 0
    size=${size%%[!0-9]*}
    [ $# -lt "$FALLBACK_FILES" ] && [ "${size:-0}" -lt $((FALLBACK_BYTES / 1024)) ]
}

exec >/dev/null
{ true 3>&2; } 2>/dev/null || exec 2>/dev/null
trap last EXIT
ulimit -f $((MAX_STDIN / 512)) 2>/dev/null
# shellcheck disable=SC3045 # where there is no such limit, that is no error
ulimit -v 524288 2>/dev/null # KiB: an endless document ends the shell, not the machine
# In the text mode FastNetMon Community leaves its own stdin connected.
[ $# = 4 ] && [ "$4" = unban ] && exec </dev/null
{ true 3<&0; } 2>/dev/null || { exec </dev/null; lost 'stdin is closed'; }

# The name. $$ is the process that FastNetMon forked.
if { IFS=- read -r a b c d e </proc/sys/kernel/random/boot_id &&
    IFS=- read -r random _ </proc/sys/kernel/random/uuid &&
    read -r stat </proc/self/stat; } 2>/dev/null; then
    boot=$a$b$c$d$e
    # shellcheck disable=SC2086 # the fields behind the program's name
    started ${stat##*)}
else # as if booted when Unix time began; fnm_bus/spool/sequence.py counts with that
    boot=00000000000000000000000000000000
    ticks=$(date +%s%2N)
    case $ticks in *%*) ticks=$(date +%s)00 ;; esac # a date that knows seconds only
    random=$(od -An -N4 -tx4 /dev/urandom)
fi
ticks=000000000000$ticks pid=000000$$
name=$boot-${ticks#"${ticks%????????????}"}-${pid#"${pid%???????}"}-${random# }

# The open file by no name, for who could change what a name means. Without /proc a
# document is not told from one without its NULs and the line breaks at its end.
itself=/dev/fd/4
[ -e /dev/fd/0 ] || itself=''

if [ -h "$SPOOL/full" ]; then
    trouble="$SPOOL/full: is a link"
elif [ -f "$SPOOL/full" ]; then
    # By its length, `all` from `status`: the spool's owner could keep whoever opens or
    # reads it waiting, by a lease (fcntl(2)), a pipe, or a terabyte.
    refused=status
    case $(stat -c %s "$SPOOL/full" 2>/dev/null) in
    3 | 4) refused=all trouble="$SPOOL: at its limit: all" ;;
    esac
fi

# Where the document is, once there is trouble: still in stdin, in the file, or here.
from=stdin
if [ -z "$trouble" ] && begin "$SPOOL" && head "$@"; then
    from=itself
    if [ "$itself" ]; then
        { document=$(tee -a "$itself" 4>&4); } 2>/dev/null
    else
        { document=$(cat) && printf %s "$document" >&4; } 2>/dev/null
    fi
    case $? in
    0) ;;
    1) # It could not read; or it has read all, and the file has not taken all.
        [ "$(cat 2>&1)" ] && lost 'stdin: cannot be read'
        from=document
        reason
        trouble=$why
        ;;
    *) lost 'tee: was killed, or is missing' ;;
    esac
    [ "$refused" ] && case $document in *attack_status*)
        trouble=${trouble:-"$SPOOL: at its limit: $refused"}
        ;;
    esac
    if [ -z "$trouble" ] && commit "$SPOOL"; then
        trap 'exit 0' EXIT
        exit 0
    fi
fi
trouble=${trouble:-$why}

[ "$from" != itself ] || [ -r "$itself" ] || from=document
[ "$from" = itself ] || end='\4'
room || lost "fallback: $FALLBACK: full"
{ command exec 5>&4; } 2>/dev/null
begin "$FALLBACK" || lost "fallback: $why"
why=$({
    case $from in
    stdin) before "$@" && cat ;;
    document) before "$@" && printf %s "$document" ;;
    itself) cat /dev/fd/5 5>&5 ;;
    esac >&4
} 2>&1) || lost "fallback: $file: ${why##*: }"
commit "$FALLBACK" || lost "fallback: $why"
clean
end "$trouble; kept in the fallback spool: $bucket/$name"
