// What enforces NetworkPolicies on a test node: kube-router's firewall without its routes, its proxy and its BGP.
package main

import (
	"flag"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/cloudnativelabs/kube-router/v2/pkg/controllers/netpol"
	"github.com/cloudnativelabs/kube-router/v2/pkg/healthcheck"
	"github.com/cloudnativelabs/kube-router/v2/pkg/options"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "of a user who reads pods, namespaces, nodes and NetworkPolicies")
	node := flag.String("node", "", "name of the node whose pods are protected")
	services := flag.String("services", "", "range of the Services' addresses")
	flag.Parse()

	config := options.NewKubeRouterConfig()
	config.EnableIPv4 = true
	config.HostnameOverride = *node
	config.ClusterIPCIDRs = []string{*services}
	stop := make(chan struct{})
	if err := enforce(*kubeconfig, config, stop); err != nil {
		klog.Exit(err)
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGINT, syscall.SIGTERM)
	<-asked
	close(stop)
}

// enforce keeps the node's rules as pods, namespaces and NetworkPolicies want them until stop is closed.
func enforce(kubeconfig string, config *options.KubeRouterConfig, stop chan struct{}) error {
	connection, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(connection)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	pods := factory.Core().V1().Pods().Informer()
	namespaces := factory.Core().V1().Namespaces().Informer()
	policies := factory.Networking().V1().NetworkPolicies().Informer()

	rules, sets, err := netpol.NewIPTablesHandlers(config)
	if err != nil {
		return err
	}
	controller, err := netpol.NewNetworkPolicyController(
		client, config, pods, policies, namespaces, &sync.Mutex{}, rules, sets)
	if err != nil {
		return err
	}
	for informer, handler := range map[cache.SharedIndexInformer]cache.ResourceEventHandler{
		pods:       controller.PodEventHandler,
		namespaces: controller.NamespaceEventHandler,
		policies:   controller.NetworkPolicyEventHandler,
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}
	factory.Start(stop)
	factory.WaitForCacheSync(stop)

	beats := make(chan *healthcheck.ControllerHeartbeat)
	go func() { // nobody asks after them, but the controller waits until they are taken
		for range beats {
		}
	}()
	running := &sync.WaitGroup{}
	running.Add(1)
	go controller.Run(beats, stop, running)
	return nil
}
