#!/usr/bin/env bash
# Installs what the tests use and the machine lacks: PostgreSQL's and RabbitMQ's
# binaries, node and npm, and with npm the emulator of Cognito. It leaves nothing
# running; the tests start their own servers.
set -euo pipefail

need=()
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || need+=(postgresql)
[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || command -v rabbitmq-server >/dev/null || need+=(rabbitmq-server)
command -v node >/dev/null || need+=(nodejs)
command -v npm >/dev/null || need+=(npm)

# The tests know the pinned version and where to keep it.
emulator() {
	echo "deps: cognito-local"
	go test -count=1 -run '^TestInstall$' ./services/account/identity/cognito/cognitotest
}

if [ ${#need[@]} -eq 0 ]; then
	echo "deps: PostgreSQL, RabbitMQ, node and npm are there"
	emulator
	exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	echo "deps: missing ${need[*]}; install them with your package manager" >&2
	exit 1
fi
echo "deps: installing ${need[*]}"
apt-get update -qq
# A policy that refuses to start services: the tests run private ones.
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d
trap 'rm -f /usr/sbin/policy-rc.d' EXIT
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
emulator
echo "deps: done"
