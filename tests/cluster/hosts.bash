# shellcheck shell=bash
two_hosts() { # NAME SUBNET: network namespaces NAME0 and NAME1, at SUBNET.1 and SUBNET.2, joined by NAMEv0 and NAMEv1
    local node
    for node in 0 1; do
        ip netns add "$1$node"
        ip -n "$1$node" link set lo up
    done
    ip link add "${1}v0" netns "${1}0" type veth peer name "${1}v1" netns "${1}1"
    for node in 0 1; do
        ip -n "$1$node" address add "$2.$((node + 1))/24" dev "${1}v$node"
        ip -n "$1$node" link set "${1}v$node" up
    done
}
