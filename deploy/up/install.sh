#!/bin/sh
# Installs Debian packages as root, without starting or enabling the servers in them and without
# creating PostgreSQL's "main" cluster. Usage: install.sh PACKAGE...
set -eu

policy=/usr/sbin/policy-rc.d # asked by each package before it starts its server
saved=$policy.before-ostoja
clusters=/etc/postgresql-common/createcluster.d
units="postgresql redis-server rabbitmq-server epmd prometheus caddy nginx pgbackrest patroni etcd haproxy"

restore() {
    if [ -e "$saved" ]; then mv "$saved" "$policy"; else rm -f "$policy"; fi
    rm -f "$clusters/ostoja.conf"
    rmdir --ignore-fail-on-non-empty "$clusters" 2>/dev/null || true
}

enabled() {
    for unit in $units; do
        if systemctl is-enabled --quiet "$unit" 2>/dev/null; then echo "$unit"; fi
    done
}

# Left behind by a killed run; otherwise its policy would be kept as the machine's own.
if grep -qs "made by ostoja" "$policy"; then restore; fi
trap restore EXIT
trap 'exit 1' HUP INT TERM

if [ -e "$policy" ]; then mv "$policy" "$saved"; fi
printf '#!/bin/sh\n# made by ostoja during an installation\nexit 101\n' >"$policy"
chmod 755 "$policy"
mkdir -p "$clusters"
echo "create_main_cluster = false" >"$clusters/ostoja.conf"

before=$(enabled | tr '\n' ' ')
export DEBIAN_FRONTEND=noninteractive
apt-get install --yes --no-install-recommends \
    -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 "$@"

# Otherwise the new servers would start at the next boot.
for unit in $(enabled); do
    case " $before " in
    *" $unit "*) ;;
    *) systemctl disable --quiet "$unit" || true ;;
    esac
done
