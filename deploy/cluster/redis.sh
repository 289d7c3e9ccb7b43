#!/bin/sh
# Starts a node of Redis, or its Sentinel: redis.sh server|sentinel. Run in the folder of its data.
# Both rewrite their configuration as they learn who is master, so it is made at the first start only.
# With TLS_DIR (docs/tls.md) all its links use TLS, also those to other nodes.
set -eu

listens() { # on port $1
    echo "bind $HOST"
    if [ -z "${TLS_DIR:-}" ]; then
        echo "port $1"
        return
    fi
    echo "port 0"
    echo "tls-port $1"
    echo "tls-ca-cert-file $TLS_DIR/ca.crt"
    echo "tls-cert-file $TLS_DIR/tls.crt"
    echo "tls-key-file $TLS_DIR/tls.key"
    echo "tls-auth-clients yes"
    echo "tls-replication yes"
}

server() {
    cat "${FILES:-/etc/ostoja}/redis.conf"
    listens "$REDIS_OWN_PORT"
    echo "requirepass $REDIS_PASSWORD"
    echo "masterauth $REDIS_PASSWORD"
    echo "replica-announce-ip $HOST"
    [ "$HOST" = "$A" ] || echo "replicaof $A $REDIS_OWN_PORT"
}

sentinel() {
    echo "dir ."
    listens "$SENTINEL_PORT"
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
