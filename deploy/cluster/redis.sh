#!/bin/sh
# Starts a node of Redis, or its Sentinel: redis.sh server|sentinel. Run in the folder of its data.
# Both rewrite their configuration as they learn who is master, so it is made at the first start only.
set -eu

server() {
    cat "${FILES:-/etc/ostoja}/redis.conf"
    echo "bind $HOST"
    echo "port $REDIS_OWN_PORT"
    echo "requirepass $REDIS_PASSWORD"
    echo "masterauth $REDIS_PASSWORD"
    echo "replica-announce-ip $HOST"
    [ "$HOST" = "$A" ] || echo "replicaof $A $REDIS_OWN_PORT"
}

sentinel() {
    echo "dir ."
    echo "bind $HOST"
    echo "port $SENTINEL_PORT"
    echo "requirepass $REDIS_PASSWORD"
    echo "sentinel sentinel-pass $REDIS_PASSWORD"
    echo "sentinel announce-ip $HOST"
    echo "sentinel monitor ostoja $A $REDIS_OWN_PORT 2"
    echo "sentinel auth-pass ostoja $REDIS_PASSWORD"
    echo "sentinel down-after-milliseconds ostoja 4000"
    echo "sentinel failover-timeout ostoja 10000"
}

if [ ! -e "$1.conf" ]; then
    umask 077
    "$1" >"$1.conf.new"
    mv "$1.conf.new" "$1.conf"
fi
case $1 in
server) exec "${REDIS_SERVER:-redis-server}" server.conf ;;
sentinel) exec "${REDIS_SERVER:-redis-server}" sentinel.conf --sentinel ;;
esac
