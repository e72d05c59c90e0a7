# DevStack plugin of agent_flows: sourced with the mode and the phase of stack.sh, see
# https://docs.openstack.org/devstack/latest/plugins.html
#
# local.conf needs Open vSwitch as ML2's driver; DevStack's own default is OVN:
#
#   Q_AGENT=openvswitch
#   Q_ML2_PLUGIN_MECHANISM_DRIVERS=openvswitch
#   enable_plugin agent_flows <URL of this repository>
#
# If Neutron's own plugin is enabled too, put it before: it writes the list of agent extensions.
#
# shellcheck shell=bash disable=SC2154 # the variables in capitals are DevStack's

AGENT_FLOWS_DIR=${AGENT_FLOWS_DIR:-$DEST/agent_flows}

# add_word FILE SECTION OPTION WORD: appends WORD to a list, once.
function agent_flows_add_word {
    local present
    present=$(iniget "$1" "$2" "$3")
    case ",${present// /}," in
        *,"$4",*) ;;
        *) iniset "$1" "$2" "$3" "${present:+$present,}$4" ;;
    esac
}

function agent_flows_configure_server {
    local ml2=/$NEUTRON_CORE_PLUGIN_CONF
    agent_flows_add_word "$NEUTRON_CONF" DEFAULT service_plugins agent_flows
    # After the driver that binds.
    agent_flows_add_word "$ml2" ml2 mechanism_drivers agent_flows
    iniset "$NEUTRON_CONF" agent_flows_server on_refresh_failure "$AGENT_FLOWS_ON_REFRESH_FAILURE"
    "$NEUTRON_BIN_DIR/neutron-db-manage" --config-file "$NEUTRON_CONF" --config-file "$ml2" \
        --subproject agent_flows upgrade heads
}

function agent_flows_configure_agent {
    local ml2=/$NEUTRON_CORE_PLUGIN_CONF
    agent_flows_add_word "$ml2" agent extensions agent_flows
    iniset "$ml2" securitygroup firewall_driver "$AGENT_FLOWS_FIREWALL_DRIVER"
}

case "$1 ${2:-}" in
    "stack pre-install")
        if [[ ${Q_AGENT:-} != openvswitch ]]; then
            die $LINENO "agent_flows needs Open vSwitch's agent: set Q_AGENT=openvswitch in local.conf"
        fi
        ;;
    "stack install")
        setup_develop "$AGENT_FLOWS_DIR"
        ;;
    "stack post-config")
        # The files of Neutron are written by now, and its services are not started yet.
        if is_service_enabled q-svc neutron-api; then
            agent_flows_configure_server
        fi
        if is_service_enabled q-agt neutron-agent; then
            agent_flows_configure_agent
        fi
        ;;
    "clean ")
        # Neutron's own clean.sh removes the bridges and the databases.
        pip_uninstall agent_flows
        ;;
esac
