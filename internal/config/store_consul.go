package config

import (
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Consul is the section of a Consul agent, as it stands in the file: dcs/consul resolves it.
type Consul struct {
	// Host is host or host:port, URL replaces it, Port and Scheme.
	Host, URL, Scheme string
	Port              int
	Token             Secret
	// Verify the server's certificate, against CACert or the system's authorities.
	Verify bool
	// Cert and Key are our own certificate; the key may be in the same file.
	CACert, Cert, Key string
	DC                string
	// Consistency is default, consistent or stale.
	Consistency string
	// Checks of the node that end the member's session when they fail.
	Checks []string
	// Register announces the member as a service.
	Register                  bool
	ServiceTags               []string
	ServiceCheckInterval      time.Duration
	ServiceCheckTLSServerName string
}

func decodeConsul(t *tree) Consul {
	c := Consul{
		Host: str(t.get("host"), ""), URL: str(t.get("url"), ""), Scheme: strings.ToLower(str(t.get("scheme"), "http")),
		Token: secret(t.get("token")), Verify: boolean(t.get("verify"), true),
		CACert: str(t.get("cacert"), ""), Cert: str(t.get("cert"), ""), Key: str(t.get("key"), ""),
		DC: str(t.get("dc"), ""), Consistency: strings.ToLower(str(t.get("consistency"), "default")),
		Checks:   stringsOf(t.get("checks")),
		Register: boolean(t.get("register_service"), false), ServiceTags: stringsOf(t.get("service_tags")),
		ServiceCheckInterval:      seconds(t.get("service_check_interval"), 5*time.Second, atLeast(0.001)),
		ServiceCheckTLSServerName: str(t.get("service_check_tls_server_name"), ""),
	}
	if s := str(t.get("port"), ""); s != "" {
		c.Port, _ = strconv.Atoi(s) // the validator says so
	}
	return c
}

// consul checks the section of the store that is used.
func (v *validator) consul() {
	section, c := v.root.get("consul"), v.c.Consul
	if c.Scheme != "http" && c.Scheme != "https" {
		v.add(Error, "consul.scheme", "is neither http nor https", "use https where Consul speaks TLS")
	}
	switch c.Consistency {
	case "default", "consistent", "stale":
	default:
		v.add(Error, "consul.consistency", "is none of default, consistent and stale", "leave it out")
	}
	https := c.Scheme == "https"
	switch {
	case c.URL != "":
		u, err := url.Parse(c.URL)
		if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" {
			v.add(Error, "consul.url", "is "+strconv.Quote(redactURL(c.URL))+", which is no address", "write http://host:port")
			return
		}
		https = u.Scheme == "https"
	case c.Host != "":
		if a, ok := readAddress(c.Host, 8500); !ok || a.Host == "" {
			v.add(Error, "consul.host", "is "+strconv.Quote(c.Host)+", which is no address", "write host, or host:port")
		}
	}
	if c.Port < 0 || c.Port > 65535 {
		v.add(Error, "consul.port", "is no port", "leave it out for 8500")
	}
	if !https && (c.CACert != "" || c.Cert != "") {
		v.add(Warning, "consul.scheme", "is http: certificates have no effect, and everything is plain text", "set scheme: https")
	}
	if c.Cert == "" && c.Key != "" {
		v.add(Error, "consul.key", "is set without cert", "give cert too")
	}
	if t := section.get("service_check_interval"); !t.isNull() {
		if d, ok := readSeconds(t); !ok || d <= 0 {
			v.add(Error, "consul.service_check_interval", "is no time", "write 5s")
		}
	}
}
