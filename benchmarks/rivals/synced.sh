#!/bin/sh
# The fewest programs that leave a durable file. A full disk costs what dd has read.
here=${0%/*}/moved
dd of="$here/tmp/$$" bs=1M iflag=fullblock conv=fsync 2>/dev/null &&
    mv "$here/tmp/$$" "$here/new/" && sync "$here/new"
