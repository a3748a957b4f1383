package stores

import (
	"log/slog"

	"github.com/pgregent/regent/dcs/consul"
	"github.com/pgregent/regent/internal/config"
)

func consulConfig(c *config.Config, base string, log *slog.Logger) consul.Config {
	s := c.Consul
	return consul.Config{
		Host: s.Host, Port: s.Port, URL: s.URL, Scheme: s.Scheme, Token: s.Token.Reveal(), NoVerify: !s.Verify,
		CACert: s.CACert, Cert: s.Cert, Key: s.Key, DC: s.DC, Consistency: s.Consistency, Checks: s.Checks,
		Register: consul.Service{
			Enabled: s.Register, Tags: s.ServiceTags, CheckInterval: s.ServiceCheckInterval,
			CheckTLSServerName: s.ServiceCheckTLSServerName,
		},
		Base: base, Scope: c.Scope, Name: c.Name, Log: log,
	}
}
