// Package consultest runs real Consul servers for tests: alone or several, killed, frozen and
// started again. scripts/consul-server.sh builds what it runs.
package consultest
